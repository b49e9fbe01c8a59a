"""A job of ``benchmarks.training`` on sentence-transformers: its trainer, in bf16.

Runs in a virtual environment of its own. ARGUMENT: the job's file.
"""

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.training_args import SentenceTransformerTrainingArguments
from training_job import Clock, arguments, load, report

job, examples = load()
columns = {
    "anchor": [example["query"] for example in examples],
    "positive": [example["positive"] for example in examples],
}
for number in range(job["negatives"]):
    columns[f"negative_{number}"] = [example["negatives"][number] for example in examples]

model = SentenceTransformer(job["model"], device="cpu")
model.max_seq_length = job["max_tokens"]
clock = Clock()
trainer = SentenceTransformerTrainer(
    model=model,
    args=SentenceTransformerTrainingArguments(**arguments(job)),
    train_dataset=Dataset.from_dict(columns),
    loss=MultipleNegativesRankingLoss(model, scale=1 / job["temperature"]),
    callbacks=[clock],
)
trainer.train()
report(len(examples) * job["epochs"], clock.seconds)
model.save(job["output"])
