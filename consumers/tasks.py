"""Threads of the workers, and the error that ends their work early."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from schemas.errors import RetrailError
from schemas.releases import Release

T = TypeVar("T")


class StoppedError(RetrailError):
    """The process stops, another one has the lease, or the task has changed."""


class Task(threading.Thread, Generic[T]):
    """Runs ``work(stopping)``, which returns soon after the event is set.

    Attributes:
        result: of ``work``, after it has returned.
        error: raised by ``work``.
    """

    def __init__(self, name: str, work: Callable[[threading.Event], T]) -> None:
        super().__init__(name=name, daemon=True)
        self.result: T | None = None
        self.error: Exception | None = None
        self._work = work
        self._stopping = threading.Event()

    def run(self) -> None:
        """The thread's body."""
        try:
            self.result = self._work(self._stopping)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Signal it to end; ``join`` waits for the end."""
        self._stopping.set()


class RunThread(Task[Release | str]):
    """A training run: ``work(check)``; ``check`` raises :class:`StoppedError` after :meth:`stop`.

    Attributes:
        moved_at: time of the last call of ``check``, on the monotonic clock, in seconds.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Release | str]) -> None:
        super().__init__("training-run", lambda _: work(self._check))
        self.moved_at = time.monotonic()

    def _check(self) -> None:
        self.moved_at = time.monotonic()
        if self._stopping.is_set():
            raise StoppedError("The run was stopped; the next active trainer completes it.")
