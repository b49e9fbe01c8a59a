"""Log lines that do not flood an agent's log while a broker is away."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("retrail")


class RateLimitedLog:
    """At most one line of a kind in ``every`` seconds; it gives the number that was suppressed.

    >>> lines = RateLimitedLog(every=10.0)
    >>> lines.add("queue full", "the queue is full")  # logs; the next ones are counted
    """

    def __init__(self, every: float = 10.0, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._now = every, now
        self._lock = threading.Lock()
        self._suppressed: dict[str, int] = {}
        self._logged_at: dict[str, float] = {}

    def add(self, kind: str, message: str, *, level: int = logging.WARNING) -> None:
        """Log ``message``, or count it towards the next line of its kind."""
        with self._lock:
            now = self._now()
            suppressed = self._suppressed.get(kind, 0)
            if now - self._logged_at.get(kind, -self._every) < self._every:
                self._suppressed[kind] = suppressed + 1
                return
            self._suppressed[kind], self._logged_at[kind] = 0, now
        log.log(level, "%s%s", message, f" ({suppressed} more like it)" if suppressed else "")


class LibrdkafkaLog(RateLimitedLog):
    """librdkafka's logger; it repeats itself every second while a broker is away."""

    def log(self, level: int, message: str, *args: object) -> None:
        """Called by confluent-kafka."""
        self.add(str(args[:1]), message % args, level=level)
