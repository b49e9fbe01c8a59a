"""Metrics, progress and health of the trainer (steps, loss and gate: ``trainer.metrics``)."""

import time
from collections.abc import Callable
from typing import Literal, get_args

import structlog
from prometheus_client import Counter, Gauge, Histogram

from retrail_runtime import health
from retrail_runtime.health import State
from retrail_runtime.metrics import at_zero
from schemas.pairs import PairVerdict
from trainer import metrics
from trainer.data.selection import REASONS
from trainer.fit.checkpoint import Step

PAIRS_READ = Counter(
    "retrail_train_pairs_read_total",
    "Labelled pairs read by the trainer, without repeated pair_ids, by verdict.",
    ["verdict"],
)
PAIRS_REPEATED = Counter(
    "retrail_train_pairs_repeated_total", "Labelled pairs with a pair_id that was read before."
)
PAIRS_PENDING = Gauge(
    "retrail_train_pairs_pending",
    "Trainable pairs since the last run; RETRAIL_TRAIN_MIN_PAIRS of them start the next.",
)
PENDING_AGE = Gauge("retrail_train_pairs_pending_age_seconds", "Age of the oldest pending pair.")
ACTIVE = Gauge("retrail_train_active", "1 on the active trainer, 0 on a stand-by.")
RUNS = Counter(
    "retrail_train_runs_total",
    "Training runs by result: ship, hold, reject, postponed (the child could not ship), "
    "empty, interrupted, failed.",
    ["result"],
)
RUN_SECONDS = Histogram(
    "retrail_train_run_duration_seconds",
    "Duration of a run from manifest to release, in seconds.",
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
PAIRS_EXCLUDED = Counter(
    "retrail_train_pairs_excluded_total",
    "Pairs in a run's ranges that did not train, by reason.",
    ["reason"],
)
NEWEST_PAIR = Gauge(
    "retrail_live_newest_pair_timestamp_seconds",
    "Unix time of the newest pair that the live model was trained on; 0 without one.",
)

_DECISIONS = ("ship", "hold", "reject")
at_zero(metrics.GATE_DECISIONS, _DECISIONS)
at_zero(RUNS, (*_DECISIONS, "postponed", "empty", "interrupted", "failed"))
at_zero(PAIRS_READ, get_args(PairVerdict))
at_zero(PAIRS_EXCLUDED, REASONS)


log = structlog.get_logger(__name__)

Phase = Literal["standing by", "deciding", "waiting", "watching", "catching up", "working"]

OnStep = Callable[[Step], None]

StageProgress = Callable[[str, int, int], None]
"""Called with the stage, the number of encoded documents, and the number of all documents."""

PROGRESS_SECONDS = 5.0
"""Between two log lines about a run's progress."""


def reporting(check: Callable[[], None], on_step: OnStep | None) -> OnStep:
    """A callback for every optimiser step.

    Args:
        check: called first; its exceptions end the training.
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
    """A callback for the gate's encoding of documents, which takes minutes on a large corpus.

    Args:
        check: called first; its exceptions end the comparison.
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


def state_of(phase: Phase, *, joined: bool, unmoved: float) -> State:
    """The state of a trainer.

    Args:
        phase: see :class:`consumers.training.worker.Trainer`.
        joined: whether the consumer group has answered.
        unmoved: seconds since the last progress of the run or, if longer, of the loop around it.
    """
    return State.of(
        {
            State.STUCK: unmoved > health.STUCK_SECONDS,
            State.SLOW: unmoved > health.SLOW_SECONDS,
            State.STARTING: not joined,
            State.STANDING_BY: phase == "standing by",
            State.NO_RELEASE: phase == "waiting",
        }
    )


def _show(step: Step) -> None:
    metrics.RUN_STEP.set(step.step)
    metrics.RUN_STEPS.set(step.steps)
    metrics.RUN_LEARNING_RATE.set(step.learning_rate)
    metrics.RUN_PAIRS_PER_SECOND.set(step.pairs_per_second)
    metrics.RUN_SECONDS_LEFT.set(step.eta_seconds)
