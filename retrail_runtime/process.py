"""What a process sets up when it starts: logging, and what a stop signal does.

================================  =================================================================
a worker over threads             ``with stop_event() as stop``: an event that is set
an asyncio program                ``with StopSignals(lambda: loop.call_soon_threadsafe(stop))``
work that must be interrupted     ``with StopSignals(interrupt, again=kill)``: KeyboardInterrupt
================================  =================================================================
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog

log = structlog.get_logger(__name__)

QUIET_LOGGERS = (
    *("aiokafka", "faust", "mode", "httpx", "httpcore", "pymilvus", "urllib3", "asyncio"),
    *("aiobotocore", "botocore", "s3fs", "fsspec", "sentence_transformers"),
)
"""Libraries whose DEBUG and INFO lines cost throughput (10% in Faust) and help no operator."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def configure(level: str = "INFO", *, json: bool | None = None) -> None:
    """Set up structlog and the standard library's logging alike: an event a line on stderr.

    Loggers are not cached, so a later call applies to all of them.

    Args:
        level: the lowest level shown, a name of the standard library's.
        json: JSON lines or text, coloured on a terminal; by default text there, JSON elsewhere.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


class RateLimit:
    """Allows one log line, or other action, of a kind in ``seconds``; for any thread.

    Example:
        >>> limit = RateLimit(seconds=10.0)
        >>> limit.allows("timeout"), limit.allows("timeout"), limit.allows("refused")
        (True, False, True)
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """``now`` returns seconds of a monotonic clock."""
        self._seconds, self._now = seconds, now
        self._lock = threading.Lock()
        self._allowed_at: dict[Hashable, float] = {}

    def allows(self, kind: Hashable = None) -> bool:
        """Whether an action of this kind is allowed now; if so, the next ones are not."""
        with self._lock:
            now, last = self._now(), self._allowed_at.get(kind)
            if last is not None and now - last < self._seconds:
                return False
            self._allowed_at[kind] = now
            return True


def interrupt() -> None:
    """Raise KeyboardInterrupt, as Python does by default on Ctrl-C only."""
    raise KeyboardInterrupt


class StopSignals:
    """Calls a function at the first stop signal and another one at each that follows.

    Only the main thread receives signals; in another thread this does nothing. A SIGHUP that is
    ignored (``nohup``) stays ignored; an ignored SIGINT (a background job of a script) does not.
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

    def __exit__(self, *_: object) -> None:
        """Restore the handlers."""
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
