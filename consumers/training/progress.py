"""The thread of a run, and the states of a trainer."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from consumers.errors import StoppedError
from retrail_runtime.metrics import SLOW_SECONDS, STUCK_SECONDS, Health
from schemas.releases import Release

Phase = Literal["standing by", "deciding", "waiting", "watching", "catching up", "working"]


class RunThread(threading.Thread):
    """Runs ``work(check)``; ``check`` raises :class:`StoppedError` after :meth:`stop`.

    Attributes:
        result: of ``work``, after it has returned.
        error: raised by ``work``.
        moved_at: time of the last call of ``check``, on the monotonic clock, in seconds.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Release | str]) -> None:
        super().__init__(name="training-run", daemon=True)
        self.result: Release | str | None = None
        self.error: Exception | None = None
        self.moved_at = time.monotonic()
        self._work = work
        self._stopping = threading.Event()

    def run(self) -> None:
        """The thread's body."""
        try:
            self.result = self._work(self._check)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Stop the work at its next check."""
        self._stopping.set()

    def _check(self) -> None:
        self.moved_at = time.monotonic()
        if self._stopping.is_set():
            raise StoppedError("The run was stopped; the next active trainer completes it.")


class State(Enum):
    """A state of a trainer: whether it is alive, whether it is ready, and its description."""

    STUCK = Health(False, False, "stuck: the run, or the loop around it, makes no progress")
    SLOW = Health(True, False, "waiting for a call to Kafka or the registry, or for a long step")
    BROKER_SILENT = Health(True, False, "waiting for Kafka")
    STARTING = Health(True, False, "starting: it has not joined its consumer group yet")
    STANDING_BY = Health(True, True, "standing by: another trainer is active")
    NO_RELEASE = Health(True, False, "waiting for the first release, which index registers")
    WORKING = Health(True, True, "working")


@dataclass(frozen=True, slots=True)
class Observation:
    """What a trainer last observed of itself; times in seconds of the monotonic clock.

    Attributes:
        turned_at: the last turn of the main loop.
        phase: see :class:`consumers.training.worker.Trainer`.
        joined: whether the consumer group has answered.
        broker_answers: whether the last request for the ends of the topics was answered.
        moved_at: last progress of the run; ``None`` without one.
    """

    turned_at: float
    phase: Phase = "standing by"
    joined: bool = True
    broker_answers: bool = True
    moved_at: float | None = None


def state_of(observed: Observation, now: float) -> State:
    """The first state that applies, in the order of these lines."""
    moved_at = observed.turned_at
    if observed.moved_at is not None:
        moved_at = min(moved_at, observed.moved_at)
    if now - moved_at > STUCK_SECONDS:
        return State.STUCK
    if now - moved_at > SLOW_SECONDS:
        return State.SLOW
    if not observed.broker_answers:
        return State.BROKER_SILENT
    if not observed.joined:
        return State.STARTING
    if observed.phase == "standing by":
        return State.STANDING_BY
    return State.NO_RELEASE if observed.phase == "waiting" else State.WORKING
