"""The state of a training on disk, from which it goes on after a kill.

Batches and learning rates are functions of the step, so the state is: weights, optimiser, random
numbers, and the steps so far. A resumed training gives the weights of an undisturbed one, bit for
bit, on the same machine.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from retrail_runtime.files import atomic_file

log = structlog.get_logger(__name__)

SECONDS = 60.0
"""Shortest time between two checkpoints."""

SHARE = 20
"""A checkpoint is written after this multiple of the time that the last one took: 5% at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step.

    Attributes:
        step: 1 to ``steps``.
        pairs: in the step's batch.
        pairs_per_second: since the start of the training.
        eta_seconds: estimated seconds until the last step.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    pairs: int
    pairs_per_second: float
    eta_seconds: float


class Checkpoint:
    """The file of one training; for one process."""

    def __init__(self, path: Path, function: str) -> None:
        """Nothing is read or written yet.

        Args:
            function: identifies parent, training file and configuration. A file of another
                training is ignored, and replaced.
        """
        self._path = path
        self._function = function
        self._due = time.monotonic() + SECONDS

    def resume(self, model: Any, optimizer: torch.optim.Optimizer) -> list[Step]:
        """Load the state, if there is one; returns the steps that are done."""
        try:
            found = torch.load(self._path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            # A damaged archive raises many types; the training starts from its first step.
            log.warning("checkpoint cannot be read", path=str(self._path), error=repr(error))
            return []
        if found["function"] != self._function:
            return []
        own = _trained(model)
        with torch.no_grad():
            for name, values in found["weights"].items():
                own[name].copy_(values)
        optimizer.load_state_dict(found["optimizer"])
        torch.set_rng_state(found["random"])
        steps = [Step(**step) for step in found["steps"]]
        log.info("training resumed", step=len(steps), steps=steps[-1].steps)
        return steps

    def save(self, model: Any, optimizer: torch.optim.Optimizer, steps: Sequence[Step]) -> None:
        """Write the state if it is time. A full disk is logged, and the training goes on."""
        began = time.monotonic()
        if began < self._due:
            return
        state = {
            "function": self._function,
            "weights": _trained(model),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "steps": [asdict(step) for step in steps],
        }
        try:
            with atomic_file(self._path) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            # torch.save replaces the error of the file by a RuntimeError.
            log.warning("checkpoint cannot be written", path=str(self._path), error=str(error))
        now = time.monotonic()
        self._due = now + max(SECONDS, SHARE * (now - began))

    def remove(self) -> None:
        """Remove the file, after the child is published."""
        self._path.unlink(missing_ok=True)


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
