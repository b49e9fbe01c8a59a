"""A job of ``benchmarks.training`` on our own trainer. ARGUMENT: the job's file."""

import time
from pathlib import Path

from training_job import load, report

from schemas.runs import TrainingConfig
from trainer.data.examples import TrainingExample
from trainer.fit import finetune
from trainer.model.encoder import Encoder

job, lines = load()
examples = [
    TrainingExample(
        pair_id=f"{number:032x}",
        query=line["query"],
        positive_id=f"p{number}",
        positive_text=line["positive"],
        negatives=tuple((f"n{number}-{i}", text) for i, text in enumerate(line["negatives"])),
        weight=1.0,
    )
    for number, line in enumerate(lines)
]
names = ("epochs", "batch", "negatives", "learning_rate", "temperature", "max_tokens", "seed")
config = TrainingConfig(**{name: job[name] for name in names})
encoder = Encoder.load(job["model"], max_tokens=job["max_tokens"], device="cpu")
began = time.perf_counter()
trained = finetune.finetune(encoder, examples, config)
report(sum(step.pairs for step in trained.steps), time.perf_counter() - began)
trained.encoder.save(Path(job["output"]))
