"""The thread of a run."""

import threading
from collections.abc import Callable

from consumers.errors import StoppedError
from schemas.releases import Release


class RunThread(threading.Thread):
    """Runs ``work(check)``; ``check`` raises :class:`StoppedError` after :meth:`stop`.

    Attributes:
        result: what ``work`` returned, once the thread has ended without an error.
        error: what ``work`` raised.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Release | str]) -> None:
        super().__init__(name="training-run", daemon=True)
        self.result: Release | str | None = None
        self.error: Exception | None = None
        self._work = work
        self._stopping = threading.Event()

    def run(self) -> None:
        """The thread's body."""
        try:
            self.result = self._work(self._check)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Ask the work to end at its next check."""
        self._stopping.set()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise StoppedError("The run was stopped; the next active trainer repeats it.")
