"""Stopping on SIGINT, SIGTERM and SIGHUP: the one place that sets signal handlers.

================================  =================================================================
a worker over threads             ``with stop_event() as stop``: an event that is set
an asyncio program                ``with StopSignals(lambda: loop.call_soon_threadsafe(stop))``
work that must be interrupted     ``with StopSignals(interrupt, again=kill)``: KeyboardInterrupt
================================  =================================================================
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import structlog

log = structlog.get_logger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt() -> None:
    """Raise KeyboardInterrupt, as Python does by default on Ctrl-C only."""
    raise KeyboardInterrupt


class StopSignals:
    """Calls a function at the first stop signal and another one at each that follows.

    Only the main thread receives signals; entered in another one this does nothing. A SIGHUP that
    is ignored (``nohup``) stays ignored; an ignored SIGINT (a background job of a script) does not.
    """

    def __init__(self, first: Callable[[], object], again: Callable[[], object] | None = None):
        """Nothing changes before it is entered.

        Args:
            first: called in a signal handler, between any two instructions of the main thread.
            again: called in a signal handler, so it must take no locks; by default the signal ends
                the process.
        """
        self.stopping = False
        """Whether a signal came. Set it to have the next one call ``again``."""
        self._first = first
        self._again = again
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        """Set the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                earlier = signal.getsignal(number)
                if number != signal.SIGHUP or earlier != signal.SIG_IGN:
                    self._earlier[number] = earlier
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Set the handlers of before."""
        while self._earlier:
            signal.signal(*self._earlier.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.stopping:
            self.stopping = True
            self._first()
        elif self._again is not None:
            self._again()
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that the first stop signal sets; a second one ends the process at once."""
    stop = threading.Event()

    def first() -> None:
        log.info("stopping on a signal")
        stop.set()

    with StopSignals(first):
        yield stop
