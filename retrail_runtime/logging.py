"""How every Retrail process logs: a line an event on standard error, JSON off a terminal."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable

import structlog

QUIET_LOGGERS = (
    *("aiokafka", "faust", "mode", "httpx", "httpcore", "pymilvus", "urllib3", "asyncio"),
    *("aiobotocore", "botocore", "s3fs", "fsspec"),
)
"""Libraries whose DEBUG and INFO lines cost throughput (10% in Faust) and tell operators little."""


def configure(level: str = "INFO", *, json: bool | None = None) -> None:
    """Set up structlog and the standard library's logging alike.

    Loggers are not cached, so a later call applies to those that have spoken as well; none of ours
    logs once an event.

    Args:
        level: the lowest level shown, a name of the standard library's.
        json: JSON lines or coloured text; by default text on a terminal, JSON elsewhere.
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
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
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
    """Lets one log line of a kind through in ``seconds``; safe to share between threads.

    Example:
        >>> limit = RateLimit(seconds=10.0)
        >>> limit.allows("timeout"), limit.allows("timeout"), limit.allows("refused")
        (True, False, True)
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """``now`` gives seconds of a clock that never goes backwards."""
        self._seconds, self._now = seconds, now
        self._lock = threading.Lock()
        self._allowed_at: dict[Hashable, float] = {}

    def allows(self, kind: Hashable = None) -> bool:
        """Whether a line of this kind may be logged now; if so, the next ones may not."""
        with self._lock:
            now, last = self._now(), self._allowed_at.get(kind)
            if last is not None and now - last < self._seconds:
                return False
            self._allowed_at[kind] = now
            return True
