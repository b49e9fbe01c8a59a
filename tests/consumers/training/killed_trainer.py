"""A trainer that kills itself with SIGKILL right after one step of a run; target of a process."""

import os
import signal
from typing import Any

import torch

from consumers import releases
from consumers.training import comparison, gate, run, worker
from consumers.training.history import RunHistory
from retrail_runtime.process import configure
from schemas.settings import Settings
from trainer.fit import checkpoint, finetune
from trainer.fit.checkpoint import Checkpoint
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry

AFTER: dict[str, tuple[Any, str]] = {
    "2 pairs are chosen": (run.Selector, "select"),
    "3 the training file is frozen": (Registry, "store_training_file"),
    "4 the manifest is acknowledged": (RunHistory, "announce"),
    "5 one step is trained": (finetune, "_count"),
    "5 a checkpoint is written": (Checkpoint, "save"),
    "5 the child is trained": (run, "train_child"),
    "6 a part of the child is written": (Encoder, "save"),
    "6 the child is published": (Registry, "publish"),
    "7 the gate has decided": (gate, "compare"),
    "7 the results by query are stored": (comparison, "compared"),
    "8 the release is acknowledged": (releases, "write_release"),
    "9 live is acknowledged": (releases, "write_live"),
}
"""The steps of :func:`consumers.training.run.train_new`, and what has just been called
then.
"""


def work(settings: Settings, after: str | None) -> None:
    """Run a trainer; kill it right after the step, if one is given."""
    configure()
    torch.set_num_threads(1)
    checkpoint.SECONDS = 0.0
    checkpoint.SHARE = 0
    if after is not None:
        _kill_after(*AFTER[after])
    worker.run(settings)


def _kill_after(where: Any, name: str) -> None:
    genuine = getattr(where, name)

    def kill(*args: Any, **named: Any) -> None:
        genuine(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(where, name, kill)
