"""Fine-tuning: a parent encoder, frozen examples and a configuration give a child encoder.

On one machine, with one version of torch and one number of threads, equal inputs give equal
weights, bit for bit: no dropout, no draw but the seeded ones of :mod:`trainer.batching`.

Dropout is off. On attention it costs three to four times the time at 256 tokens, because the fused
kernel cannot be used; and over the few steps of a run, from a trained parent, it gains nothing.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from schemas.errors import RetrailError
from schemas.runs import TrainingConfig
from schemas.settings import Settings
from trainer import batching, gradients, metrics
from trainer.batching import Batch
from trainer.encoder import Encoder
from trainer.examples import TrainingExample

log = structlog.get_logger(__name__)

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises from 0; it then falls linearly to 0."""

WEIGHT_DECAY = 0.01
"""On matrices; not on biases and norms."""

MAX_GRADIENT_NORM = 1.0


class TrainingDiverged(RetrailError):
    """The loss or its gradient is no longer a number; the child is thrown away."""


class NothingToLearn(RetrailError):
    """No batch has two queries or a negative, so there is nothing to tell a positive from."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step.

    Attributes:
        step: 1 to ``steps``.
        pairs: in the step's batch.
        pairs_per_second: since training began.
        eta_seconds: until the last step, at that speed.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    pairs: int
    pairs_per_second: float
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a run gave: the child, and the training curve."""

    encoder: Encoder
    steps: tuple[Step, ...]
    seconds: float


def config_of(settings: Settings) -> TrainingConfig:
    """The hyper-parameters that the settings ask for."""
    return TrainingConfig(
        epochs=settings.train_epochs,
        batch=settings.train_batch,
        negatives=settings.train_negatives,
        learning_rate=settings.train_learning_rate,
        temperature=settings.train_temperature,
        max_tokens=settings.max_tokens,
        seed=settings.train_seed,
        variant=settings.train_variant,
    )


def finetune(
    encoder: Encoder,
    examples: Sequence[TrainingExample],
    config: TrainingConfig,
    *,
    on_step: Callable[[Step], None] | None = None,
) -> TrainingReport:
    """Train a child of ``encoder``, which stays as it is and may go on encoding meanwhile.

    Args:
        encoder: the parent.
        examples: in any order.
        config: hyper-parameters.
        on_step: called after every step; training stops with whatever it raises.

    Raises:
        NothingToLearn: the examples give no step.
        TrainingDiverged: the loss or its gradient is not finite.
    """
    batches = plan(examples, config)
    child = encoder.copy()
    optimizer = _optimizer(child.model, config.learning_rate)
    curve: list[Step] = []
    trained = 0
    started = time.perf_counter()
    for number, batch in enumerate(batches, start=1):
        began = time.perf_counter()
        learning_rate = config.learning_rate * learning_rate_factor(number, len(batches))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        loss = gradients.backward(child, batch, config)
        _check(loss, number, len(batches))
        norm = torch.nn.utils.clip_grad_norm_(child.model.parameters(), MAX_GRADIENT_NORM)
        _check(float(norm), number, len(batches))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trained += len(batch.queries)
        now = time.perf_counter()
        step = Step(
            step=number,
            steps=len(batches),
            loss=loss,
            learning_rate=learning_rate,
            pairs=len(batch.queries),
            pairs_per_second=trained / (now - started),
            eta_seconds=(now - started) / number * (len(batches) - number),
        )
        _count(step, now - began)
        curve.append(step)
        if on_step is not None:
            on_step(step)
    child.model.requires_grad_(False)
    return TrainingReport(child, tuple(curve), time.perf_counter() - started)


def plan(examples: Sequence[TrainingExample], config: TrainingConfig) -> list[Batch]:
    """The batches of all epochs, in order.

    Raises:
        NothingToLearn: there is none.
    """
    batches = [
        batch
        for number in range(config.epochs)
        for batch in batching.epoch(
            examples,
            size=config.batch,
            negatives=config.negatives,
            seed=config.seed,
            number=number,
        )
    ]
    if not batches:
        raise NothingToLearn(
            f"The {len(examples)} pairs of this run give no training step: that takes two "
            "queries, or one with a negative. Wait until there are more pairs."
        )
    return batches


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear rise over the warm-up, linear fall after it, for steps 1 to ``steps``; never 0."""
    warm_up = int(WARM_UP * steps)
    if step <= warm_up:
        return step / (warm_up + 1)
    return (steps + 1 - step) / (steps - warm_up)


def _optimizer(model: Any, learning_rate: float) -> torch.optim.AdamW:
    model.requires_grad_(True)
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=True,
    )


def _check(value: float, step: int, steps: int) -> None:
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"Training diverged at step {step} of {steps} (loss or gradient {value}). The child is "
            "thrown away. Lower RETRAIL_TRAIN_LEARNING_RATE or raise RETRAIL_TRAIN_TEMPERATURE."
        )


def _count(step: Step, seconds: float) -> None:
    metrics.TRAINING_STEPS.inc()
    metrics.TRAINING_PAIRS.inc(step.pairs)
    metrics.TRAINING_BATCH.observe(step.pairs)
    metrics.TRAINING_LOSS.set(step.loss)
    metrics.TRAINING_STEP_SECONDS.observe(seconds)
