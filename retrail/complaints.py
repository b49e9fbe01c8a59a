"""Log lines that do not flood an agent's log while a broker is away."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("retrail")


class Complaints:
    """At most one line of a kind in ``every`` seconds; it says how many it stands for.

    >>> complaints = Complaints(every=10.0)
    >>> complaints.add("queue full", "the queue is full")  # logs; the next ones are counted
    """

    def __init__(self, every: float = 10.0, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._now = every, now
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._logged_at: dict[str, float] = {}

    def add(self, kind: str, message: str, *, level: int = logging.WARNING) -> None:
        """Log ``message``, or count it towards the next line of its kind."""
        with self._lock:
            now = self._now()
            held = self._held.get(kind, 0)
            if now - self._logged_at.get(kind, -self._every) < self._every:
                self._held[kind] = held + 1
                return
            self._held[kind], self._logged_at[kind] = 0, now
        log.log(level, "%s%s", message, f" (and {held} more like it)" if held else "")
