"""A job of ``benchmarks.training`` on sentence-transformers: its trainer, in bf16.

Runs in a virtual environment of its own: JOB is a file of ``benchmarks.training.Job`` as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.training_args import SentenceTransformerTrainingArguments
from transformers import TrainerCallback

job = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(job["threads"])


class Clock(TrainerCallback):
    """From the first batch to the last step."""

    def on_train_begin(self, *_, **__):
        self.began = time.perf_counter()

    def on_train_end(self, *_, **__):
        self.seconds = time.perf_counter() - self.began


examples = [json.loads(line) for line in Path(job["data"]).read_text().splitlines()]
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
    args=SentenceTransformerTrainingArguments(
        output_dir=job["output"],
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=job["batch"],
        learning_rate=job["learning_rate"],
        warmup_steps=int(0.1 * job["steps"]),
        weight_decay=0.01,
        bf16=True,
        use_cpu=True,
        seed=job["seed"],
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    ),
    train_dataset=Dataset.from_dict(columns),
    loss=MultipleNegativesRankingLoss(model, scale=1 / job["temperature"]),
    callbacks=[clock],
)
trainer.train()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.save(job["output"])
print(
    json.dumps(
        {"pairs": len(examples) * job["epochs"], "seconds": clock.seconds, "peak_mb": peak / 1024}
    )
)
