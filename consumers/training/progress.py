"""How far a run is: in the log, as metrics, and for a caller."""

import time
from collections.abc import Callable

import structlog

from consumers.training.gate import StageProgress
from trainer import metrics
from trainer.fit.finetune import Step

log = structlog.get_logger(__name__)

OnStep = Callable[[Step], None]

PROGRESS_SECONDS = 5.0
"""Between two lines about the progress of a run in the log."""


def reporting(check: Callable[[], None], on_step: OnStep | None) -> OnStep:
    """A callback for every optimiser step.

    Args:
        check: called first; what it raises ends the training.
        on_step: called with every step.
    """
    logged_at = time.monotonic()

    def report(step: Step) -> None:
        nonlocal logged_at
        check()
        _show(step)
        if on_step is not None:
            on_step(step)
        if time.monotonic() - logged_at >= PROGRESS_SECONDS or step.step == step.steps:
            logged_at = time.monotonic()
            log.info(
                "training",
                step=step.step,
                steps=step.steps,
                loss=round(step.loss, 4),
                pairs_per_second=round(step.pairs_per_second, 1),
                seconds_left=round(step.eta_seconds),
            )

    return report


def comparing(check: Callable[[], None]) -> StageProgress:
    """A callback for the encoding of the gate's documents: minutes, on a large corpus.

    Args:
        check: called first; what it raises ends the comparison.
    """
    logged_at = began = time.monotonic()
    stage = ""

    def report(doing: str, done: int, of: int) -> None:
        nonlocal logged_at, began, stage
        check()
        now = time.monotonic()
        if doing != stage:
            stage, began = doing, now
        if now - logged_at >= PROGRESS_SECONDS:
            logged_at = now
            left = (now - began) / done * (of - done) if done else 0.0
            log.info(doing, documents=done, of=of, seconds_left=round(left))

    return report


def _show(step: Step) -> None:
    metrics.RUN_STEP.set(step.step)
    metrics.RUN_STEPS.set(step.steps)
    metrics.RUN_LEARNING_RATE.set(step.learning_rate)
    metrics.RUN_PAIRS_PER_SECOND.set(step.pairs_per_second)
    metrics.RUN_SECONDS_LEFT.set(step.eta_seconds)
