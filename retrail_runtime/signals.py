"""Turning the signals that ask a process to end into a call."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class AskedToStop(BaseException):
    """Ctrl-C, SIGTERM, or the terminal was closed."""


class Ending:
    """What a signal means: the first one raises :class:`AskedToStop`, later ones are urgent."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        """``hurry`` is called in a signal handler, so it must take no locks."""
        self.stopping = False
        self._hurry = hurry

    def __call__(self) -> None:
        """React to a signal."""
        if self.stopping:
            self._hurry()
        else:
            self.stopping = True
            raise AskedToStop


@contextmanager
def on_ending_signals(react: Callable[[], None]) -> Iterator[None]:
    """Call ``react`` on each signal of :data:`ENDING`; only in the main thread.

    A hang-up that is ignored (``nohup``) stays ignored; an ignored Ctrl-C (a script's background
    job) does not, because how else would one stop it.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        react()

    before = {number: signal.getsignal(number) for number in ENDING}
    for number, earlier in before.items():
        if not (number == signal.SIGHUP and earlier == signal.SIG_IGN):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
