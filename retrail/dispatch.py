"""What a publisher and its trajectories share: the outbox, the policies, the counting of losses.

Nothing is lost in silence: every event that will never arrive is raised, or logged, counted and
handed to ``on_failure``.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from retrail.complaints import Complaints
from retrail.errors import DeliveryError, PublisherClosedError, PublishError, QueueFullError
from retrail.outbox import Outbox
from retrail.texts import Shown, TextPolicy, shown
from retrail.wire import Record

log = logging.getLogger("retrail")

Kind = Literal["reasoning", "answer"]


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
        seq: its number in the trajectory; ``None`` for an outcome, which has none.

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


class Dispatch:
    """Takes records from trajectories to the outbox, as the publisher's arguments say.

    Args:
        raises: whether what cannot be published raises or is dropped.
        block_seconds: how long a call waits for room.
        policies: what leaves of an agent's texts.
        on_failure: called with what is lost and not raised.
        config: librdkafka properties that reach the brokers.
        topic: where events go, unless they name another.
        bounds: the other arguments of :class:`~retrail.outbox.Outbox`.

    Raises:
        KafkaException: librdkafka refuses ``config``.
    """

    def __init__(
        self,
        *,
        raises: bool,
        block_seconds: float,
        policies: Mapping[Kind, TextPolicy],
        on_failure: Callable[[LostEvent], None] | None,
        config: dict[str, Any],
        topic: str,
        **bounds: Any,
    ) -> None:
        self.raises, self.block_seconds = raises, block_seconds
        self.bootstrap: str = config["bootstrap.servers"]
        self.topic = topic
        self._policies, self._on_failure = policies, on_failure
        self._count_afresh()
        self.outbox = Outbox(config, forked=self._count_afresh, **bounds)

    def stats(self) -> Stats:
        """What became of the events so far."""
        with self._counting:
            counts = dict(self._counts)
        settled = counts["delivered"] + counts["failed"]
        return Stats(**counts, waiting=counts["published"] - settled)

    def publish(self, record: Record, trajectory_id: str, kind: str, topic: str) -> None:
        """Put a record that has no number into the queue, waiting for room if need be.

        Raises:
            PublishError: it cannot be published.
        """
        deadline = time.monotonic() + self.block_seconds
        while not self.enqueue(record, trajectory_id, None, kind, topic):
            left = deadline - time.monotonic()
            if left <= 0 or not self.wait_for_room(record.size, left):
                raise self.queue_full()

    def enqueue(
        self,
        record: Record,
        trajectory_id: str,
        seq: int | None,
        kind: str,
        topic: str | None = None,
    ) -> bool:
        """Put a record into the queue, or return ``False`` if it is full; never blocks.

        Raises:
            PublisherClosedError: the publisher was closed.
            QueueFullError: librdkafka's own queue is full, so waiting for room in ours is no use.
        """
        if self.outbox.closed:
            raise PublisherClosedError("The publisher is closed; make a new one.")

        def report(error: str | None) -> None:
            if error is None:
                self._count("delivered")
            else:
                self._count("failed")
                self._lose(LostEvent(trajectory_id, seq, kind, error), "events were not delivered")

        self._count("published")
        taken = False
        try:
            taken = self.outbox.send(record, report, topic or self.topic)
        except BufferError as error:
            raise self.queue_full() from error
        finally:
            if not taken:
                self._count("published", -1)
        return taken

    def wait_for_room(self, size: int, seconds: float) -> bool:
        """Wait for room; while events are dropped, a wait in vain is the last until one arrives."""
        return self.outbox.wait_for_room(size, seconds, again=self.raises)

    def queue_full(self) -> QueueFullError:
        """The error of a call that found no room."""
        return QueueFullError(
            f"{self.outbox.waiting:,} events wait for the broker at {self.bootstrap}, which does "
            "not take them fast enough. Is it running, and does the topic "
            f"{self.topic} exist (`retrail topics create`)?"
        )

    def shown(self, kind: Kind, text: str) -> Shown:
        """What of a text may leave the process."""
        result = shown(text, self._policies[kind])
        if result.failure is not None:
            self._count("redaction_failures")
            self._complaints.add(
                "redaction", f"a redaction hook failed ({result.failure}); the text is withheld"
            )
        return result

    def refuse(self, error: Exception, trajectory_id: str, seq: int | None, kind: str) -> None:
        """An event was not queued: raise, or drop it where everyone can see it."""
        known = isinstance(error, PublishError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        if self.raises:
            if known:
                raise error
            raise PublishError(f"This {kind} event cannot be published. {why}") from error
        self._count("dropped")
        self._lose(LostEvent(trajectory_id, seq, kind, why), "events were dropped")

    def complain(self, what: str, error: Exception) -> None:
        """Log an error that must not be raised."""
        self._complaints.add(what, f"{what}: {error}")

    def raise_failures(self) -> None:
        """Raise what was given up since the last call, if errors are to be raised.

        Raises:
            DeliveryError: with their number.
        """
        with self._counting:
            failed = self._counts["failed"] - self._raised
            self._raised += failed
        if failed and self.raises:
            raise DeliveryError(
                f"{failed:,} events were not delivered to {self.bootstrap} in time, or before the "
                "publisher was closed.",
                failed,
            )

    def _lose(self, event: LostEvent, what: str) -> None:
        self._complaints.add(what + event.error[:40], f"{what}: {event}")
        if self._on_failure is None:
            return
        try:
            self._on_failure(event)
        except Exception:
            log.exception("on_failure failed")

    def _count(self, name: str, by: int = 1) -> None:
        with self._counting:
            self._counts[name] += by

    def _count_afresh(self) -> None:
        self._counting = threading.Lock()
        self._complaints = Complaints()
        self._raised = 0
        self._counts: dict[str, int] = dict.fromkeys(
            ("published", "delivered", "failed", "dropped", "redaction_failures"), 0
        )
