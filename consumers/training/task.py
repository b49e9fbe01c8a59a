"""Work in a thread of its own that can be told to stop."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from consumers.training.training_run import Interrupted

log = structlog.get_logger(__name__)

T = TypeVar("T")

STOP_SECONDS = 20.0
"""How long a stopped task is waited for. What it leaves behind a crash would leave behind too."""


class Task(threading.Thread, Generic[T]):
    """Runs ``work(check)``; ``check`` raises :class:`Interrupted` once :meth:`stop` was called.

    Attributes:
        result: of ``work``, once the thread has ended without an error.
        error: what ``work`` raised.
    """

    def __init__(self, work: Callable[[Callable[[], None]], T]) -> None:
        super().__init__(name="training-run", daemon=True)
        self.result: T | None = None
        self.error: Exception | None = None
        self._work = work
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """The thread's body."""
        try:
            self.result = self._work(self._check)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Ask the work to end at its next check."""
        self._stop_asked.set()

    def stop_and_wait(self) -> None:
        """Ask the work to end, and wait for that."""
        self.stop()
        self.join(STOP_SECONDS)
        if self.is_alive():
            log.warning("a run did not stop in time; it is repeated by the next active trainer")

    def _check(self) -> None:
        if self._stop_asked.is_set():
            raise Interrupted
