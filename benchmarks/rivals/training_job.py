"""What the contestants of ``benchmarks.training`` share: reading a job, timing, reporting.

Imported beside its script, in whichever virtual environment that runs in.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import TrainerCallback


def load():
    """The job (``benchmarks.training.Job``) that the first argument names, and its pairs."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    return job, [json.loads(line) for line in Path(job["data"]).read_text().splitlines()]


def arguments(job):
    """Of transformers' trainer, equal for all that use it."""
    return {
        "output_dir": job["output"],
        "num_train_epochs": job["epochs"],
        "per_device_train_batch_size": job["batch"],
        "learning_rate": job["learning_rate"],
        "warmup_steps": int(0.1 * job["steps"]),
        "weight_decay": 0.01,
        "bf16": True,
        "use_cpu": True,
        "seed": job["seed"],
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class Clock(TrainerCallback):
    """From the first batch to the last step."""

    def on_train_begin(self, *_, **__):
        self.began = time.perf_counter()

    def on_train_end(self, *_, **__):
        self.seconds = time.perf_counter() - self.began


def report(pairs, seconds):
    """Print the figures; to be called before anything but training takes memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"pairs": pairs, "seconds": seconds, "peak_mb": peak}))
