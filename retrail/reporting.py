"""What the client reports to its process: counts, lost events, rate-limited log lines."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("retrail")


class RateLimitedLog:
    """Logs at most one line of a kind per ``every`` seconds, with the number of suppressed ones.

    >>> lines = RateLimitedLog(every=10.0)
    >>> lines.add("queue full", "the queue is full")  # logged; the next ones are counted
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
    """librdkafka's logger, which repeats its lines every second while a broker is unavailable."""

    def log(self, level: int, message: str, *args: object) -> None:
        """Called by confluent-kafka."""
        self.add(str(args[:1]), message % args, level=level)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of the events of this process.

    Attributes:
        published: enqueued = delivered + failed + waiting.
        delivered: acknowledged by the broker.
        failed: enqueued, but not acknowledged in time.
        dropped: never enqueued (queue full, too large, invalid, after the end).
        waiting: in the queue now.
        redaction_failures: texts withheld because a redaction hook failed.

    Example:
        >>> Stats(published=3, delivered=2, waiting=1).lost
        0
    """

    published: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0
    redaction_failures: int = 0

    @property
    def lost(self) -> int:
        """Events that will not be delivered.

        Example:
            >>> Stats(failed=1, dropped=2).lost
            3
        """
        return self.failed + self.dropped


@dataclass(frozen=True, slots=True)
class LostEvent:
    """An event that will not be delivered, for ``on_failure``; without the agent's texts.

    Attributes:
        trajectory_id: its trajectory.
        seq: its number; ``None`` in an unnumbered trajectory, and for an outcome.
        type: its type, such as ``"browse"``.
        error: why it is lost.

    Example:
        >>> LostEvent("task-17", 3, "browse", "Local: Message timed out").type
        'browse'
    """

    trajectory_id: str
    seq: int | None
    type: str
    error: str

    def __str__(self) -> str:
        number = "" if self.seq is None else f" {self.seq}"
        return f"{self.type}{number} of trajectory {self.trajectory_id}: {self.error}"
