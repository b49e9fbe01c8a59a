"""Data-parallel computation of two processes, started by torchrun for test_processes.py.

    torchrun --nproc-per-node 2 -m tests.trainer.joint_training MODEL FOLDER

Each process writes what it has in the end into ``FOLDER/<rank>.pt``. Alone, :func:`computed` gives
the same.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.runs import TrainingConfig
from tests.trainer.labelled import example
from trainer.fit import finetune, gradients
from trainer.fit.processes import Processes, joined
from trainer.model.encoder import Encoder

CONFIG = TrainingConfig(
    epochs=2, batch=6, negatives=2, learning_rate=1e-3, temperature=0.1, max_tokens=48, seed=0
)
EXAMPLES = [
    example(
        i,
        query=f"query {i % 5}",
        positive_text=f"{'long ' * i} text {i}",
        negatives=((f"n{i}", f"number {i}"), ("n", "shared")),
        weight=0.5 + i / 4,
    )
    for i in range(9)
]
TWO = [example(i) for i in range(2)]
WAYS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "kept": ({}, EXAMPLES),
    "encoded twice": ({"tokens_kept": 0, "tokens_at_once": 96}, EXAMPLES),
    "small": ({}, TWO),
}


def computed(model: Path, processes: Processes) -> dict[str, Any]:
    """Loss and gradients of a step in float64, for each of WAYS, and a child's weights."""
    found: dict[str, Any] = {}
    for way, (changes, examples) in WAYS.items():
        config = CONFIG.model_copy(update=changes)
        exact = Encoder.load(model, precision="float32", device="cpu")
        exact.model.double().requires_grad_(True)
        batch = finetune.plan(examples, config)[0]
        found[way] = (gradients.backward(exact, batch, config, processes), gradients_of(exact))
    encoder = Encoder.load(model, precision="float32", device="cpu")
    report = finetune.finetune(encoder, EXAMPLES, CONFIG, processes=processes)
    found["losses"] = [step.loss for step in report.steps]
    found["child"] = report.encoder.model.state_dict()
    return found


def gradients_of(encoder: Encoder) -> dict[str, Tensor]:
    """Gradients by parameter name."""
    return {name: p.grad for name, p in encoder.model.named_parameters() if p.grad is not None}


def main(model: str, folder: str) -> None:
    """Compute in a process group; each process writes its results."""
    torch.set_num_threads(1)
    gradients.computes_in_bfloat16 = lambda device: False
    with joined() as processes:
        torch.save(computed(Path(model), processes), Path(folder) / f"{processes.rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
