"""A job of ``benchmarks.training`` on our own trainer; JOB as for the rivals."""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from schemas.runs import TrainingConfig
from trainer import finetune
from trainer.encoder import Encoder
from trainer.examples import TrainingExample

job = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(job["threads"])

examples = [
    TrainingExample(
        pair_id=f"{number:032x}",
        query=line["query"],
        positive_id=f"p{number}",
        positive_text=line["positive"],
        negatives=tuple((f"n{number}-{i}", text) for i, text in enumerate(line["negatives"])),
        rejected=0,
        weight=1.0,
    )
    for number, line in enumerate(map(json.loads, Path(job["data"]).read_text().splitlines()))
]
config = TrainingConfig(
    epochs=job["epochs"],
    batch=job["batch"],
    negatives=job["negatives"],
    learning_rate=job["learning_rate"],
    temperature=job["temperature"],
    max_tokens=job["max_tokens"],
    seed=job["seed"],
)
encoder = Encoder.load(job["model"], max_tokens=job["max_tokens"], device="cpu")
began = time.perf_counter()
report = finetune.finetune(encoder, examples, config)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report.encoder.save(Path(job["output"]))
pairs = sum(step.pairs for step in report.steps)
print(json.dumps({"pairs": pairs, "seconds": seconds, "peak_mb": peak / 1024}))
