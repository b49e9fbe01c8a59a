"""The thread of a run, and the state of a trainer."""

import threading
import time
from collections.abc import Callable
from typing import Literal

from consumers.errors import StoppedError
from retrail_runtime import health
from retrail_runtime.health import State
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
