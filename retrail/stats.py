"""What became of the events of a process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of the events of this process.

    Attributes:
        published: taken into the queue = delivered + failed + waiting.
        delivered: acknowledged by the broker.
        failed: queued, but given up: the broker did not take them in time.
        dropped: never queued (queue full, too large, invalid, after the end).
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
        """Events that will never arrive.

        Example:
            >>> Stats(failed=1, dropped=2).lost
            3
        """
        return self.failed + self.dropped


@dataclass(frozen=True, slots=True)
class LostEvent:
    """An event that will never arrive, for ``on_failure``; it holds none of the agent's texts.

    Attributes:
        trajectory_id: its trajectory.
        seq: its number in the trajectory; ``None`` for an outcome, which has none.
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
