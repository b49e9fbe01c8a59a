"""The publishing client: an agent's steps on their way to Kafka, without standing in its way."""

import logging
import math
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from confluent_kafka import KafkaException

from retrail import connection, wire
from retrail.complaints import Complaints
from retrail.errors import (
    ConfigurationError,
    InvalidEvent,
    NotDelivered,
    PublisherClosed,
    PublishError,
)
from retrail.outbox import Outbox
from retrail.texts import Shown, TextPolicy, shown
from retrail.trajectory import Trajectory

log = logging.getLogger("retrail")


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
        """Events that will never arrive."""
        return self.failed + self.dropped


@dataclass(frozen=True, slots=True)
class LostEvent:
    """An event that will never arrive, for ``on_failure``; it holds none of the agent's texts.

    Example:
        >>> LostEvent("task-17", 3, "browse", "Local: Message timed out").type
        'browse'
    """

    trajectory_id: str
    seq: int
    type: str
    error: str


class Publisher:
    """Publishes what an agent does as trajectory events; one for a process, shared by its threads.

    It never takes the agent down: calls only enqueue, a thread of its own delivers, and with
    ``on_error="drop"`` the methods raise nothing; what is lost is logged (at most a line of a kind
    in 10 s), counted in :attr:`stats` and handed to ``on_failure``.

    After a fork the child's publisher starts empty, with a connection of its own; what the parent
    had queued is sent by the parent alone. At the end of the process (also of a ``multiprocessing``
    worker) the queue is flushed for at most ``close_seconds``. A process that is killed by a signal
    runs no such code: call :meth:`close` from its handler.

    Args:
        agent: name of the agent.
        model: its language model; agents of one model share a verbosity when pairs are weighted.
        bootstrap: ``host:port`` list; default ``RETRAIL_KAFKA_BOOTSTRAP``, else 127.0.0.1:9092.
            ``RETRAIL_KAFKA_SECURITY_PROTOCOL``, ``…_SASL_MECHANISM``, ``…_SASL_USERNAME``,
            ``…_SASL_PASSWORD``, ``…_SSL_CAFILE``, ``…_SSL_CERTFILE`` and ``…_SSL_KEYFILE`` are
            read too; ``RETRAIL_ENV_FILE`` names a file with such variables.
        topic_prefix: default ``RETRAIL_TOPIC_PREFIX``, else nothing.
        tenant: whose trajectories these are.
        retriever_version: version of the retriever that the agent searches, if it knows it.
        reasoning_text: ``"send"``; ``"withhold"``: only the length in tokens and the agent's own
            verdict leave the process; or a redaction hook, ``str → str | None``. A hook that raises
            withholds the text.
        answer_text: likewise for answers.
        on_error: ``"drop"``, or ``"raise"``: a call that cannot publish raises a
            :class:`~retrail.PublishError`, and :meth:`flush` and :meth:`close` raise
            :class:`~retrail.NotDelivered`.
        block_seconds: how long a call waits for room in a full queue; 0: not at all. A thread that
            runs an event loop never waits. With ``on_error="drop"`` a wait in vain is the last one
            until the broker takes events again.
        on_failure: called with every :class:`LostEvent` that is not raised, from the calling thread
            or the delivery thread; keep it short.
        max_queue_events, max_queue_bytes: bounds of the queue.
        delivery_seconds: how long an event may wait for the broker before it counts as failed.
        close_seconds: how long :meth:`close` and the end of the process wait for deliveries.
        kafka: more librdkafka properties, such as ``{"sasl.oauthbearer.config": …}``.

    Raises:
        ConfigurationError: an argument, a variable or a librdkafka property cannot be used.

    Example:
        >>> from retrail import Publisher
        >>> publisher = Publisher(agent="my-agent", model="qwen3-30b")  # doctest: +SKIP
        >>> with publisher.trajectory() as trajectory:  # doctest: +SKIP
        ...     trajectory.search("who built it", ["d7", "d2"])
    """

    def __init__(
        self,
        agent: str,
        model: str = "",
        *,
        bootstrap: str | None = None,
        topic_prefix: str | None = None,
        tenant: str = "",
        retriever_version: int | None = None,
        reasoning_text: TextPolicy = "send",
        answer_text: TextPolicy = "send",
        on_error: Literal["drop", "raise"] = "drop",
        block_seconds: float = 1.0,
        on_failure: Callable[[LostEvent], None] | None = None,
        max_queue_events: int = 100_000,
        max_queue_bytes: int = 64 * 1024 * 1024,
        delivery_seconds: float = 300.0,
        close_seconds: float = 10.0,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        _require(on_error in ("drop", "raise"), "on_error is 'drop' or 'raise'")
        for name, policy in (("reasoning_text", reasoning_text), ("answer_text", answer_text)):
            _require(
                policy in ("send", "withhold") or callable(policy),
                f"{name} is 'send', 'withhold' or a function",
            )
        _require(
            max_queue_events >= 1 and max_queue_bytes >= 1,
            "max_queue_events and max_queue_bytes are at least 1",
        )
        seconds = (block_seconds, delivery_seconds, close_seconds)
        _require(
            all(math.isfinite(value) and value >= 0 for value in seconds),
            "block_seconds, delivery_seconds and close_seconds are finite and not negative",
        )
        try:
            wire.sender("any", agent, model, tenant)
            wire.text_of("agent", agent, shortest=1)
            wire.version_of(retriever_version)
        except InvalidEvent as error:
            raise ConfigurationError(str(error)) from error
        self.agent, self.model = agent, model
        self.raises = on_error == "raise"
        self.block_seconds = block_seconds
        self._tenant, self._retriever_version = tenant, retriever_version
        self._policies = {"reasoning": reasoning_text, "answer": answer_text}
        self._on_failure = on_failure
        self._close_seconds, self._delivery_seconds = close_seconds, delivery_seconds
        self._count_afresh()
        environ = connection.environment()
        config = connection.kafka_config(bootstrap, kafka or {}, environ)
        self._bootstrap = config["bootstrap.servers"]
        try:
            self._outbox = Outbox(
                config,
                connection.topic_name(topic_prefix, environ),
                max_events=max_queue_events,
                max_bytes=max_queue_bytes,
                delivery_seconds=delivery_seconds,
                close_seconds=close_seconds,
                forked=self._count_afresh,
            )
        except (KafkaException, TypeError, ValueError) as error:
            raise ConfigurationError(f"librdkafka refuses the configuration: {error}") from error

    def __repr__(self) -> str:
        return f"Publisher(agent={self.agent!r}, topic={self.topic!r}, at={self._bootstrap!r})"

    @property
    def topic(self) -> str:
        """Where events go.

        Example:
            >>> Publisher("me", topic_prefix="team_").topic  # doctest: +SKIP
            'team_trajectory-events'
        """
        return self._outbox.topic

    @property
    def stats(self) -> Stats:
        """What became of the events so far, in this process.

        Example:
            >>> publisher.stats.lost  # doctest: +SKIP
            0
        """
        with self._counting:
            counts = dict(self._counts)
        settled = counts["delivered"] + counts["failed"]
        return Stats(**counts, waiting=counts["published"] - settled)

    def trajectory(
        self,
        trajectory_id: str | None = None,
        *,
        tenant: str | None = None,
        retriever_version: int | None = None,
    ) -> Trajectory:
        """Open a trajectory: one task, from its first step to its end.

        Args:
            trajectory_id: 1 to 512 characters, never used before; default a random one.
            tenant: instead of the publisher's.
            retriever_version: instead of the publisher's.

        Raises:
            InvalidEvent: ``on_error="raise"`` and an argument cannot be used; with ``"drop"`` all
                events of the trajectory are dropped and counted.

        Example:
            >>> with publisher.trajectory() as trajectory:  # doctest: +SKIP
            ...     trajectory.search("who built it", ["d7", "d2"])
            ...     trajectory.end("incorrect")
        """
        return Trajectory(
            self,
            uuid.uuid4().hex if trajectory_id is None else trajectory_id,
            self._tenant if tenant is None else tenant,
            self._retriever_version if retriever_version is None else retriever_version,
        )

    def flush(self, timeout: float | None = None) -> int:
        """Wait until every event so far is delivered or given up.

        Args:
            timeout: seconds, at most; default ``close_seconds``.

        Returns:
            How many events still wait.

        Raises:
            NotDelivered: ``on_error="raise"`` and events were given up since the last flush.

        Example:
            >>> publisher.flush(5.0)  # doctest: +SKIP
            0
        """
        waiting = self._outbox.flush(self._close_seconds if timeout is None else timeout)
        self._raise_failures()
        return waiting

    def close(self, timeout: float | None = None) -> None:
        """Flush, give up what is left, and take no more events; again has no effect.

        Raises:
            NotDelivered: ``on_error="raise"`` and events were given up since the last flush.

        Example:
            >>> publisher.close()  # doctest: +SKIP
        """
        self._outbox.close(self._close_seconds if timeout is None else timeout)
        self._raise_failures()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        leaving: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except NotDelivered as error:
            if leaving is None:
                raise
            self.complain("events were not delivered", error)

    # What follows is for Trajectory.

    def enqueue(self, record: wire.Record, trajectory_id: str, seq: int, kind: str) -> bool:
        """Put a record into the queue, or return ``False`` if it is full; never blocks."""
        if self._outbox.closed:
            raise PublisherClosed("The publisher is closed; make a new one.")

        def report(error: str | None) -> None:
            if error is None:
                self._count("delivered")
            else:
                self._count("failed")
                self._lost(LostEvent(trajectory_id, seq, kind, error), "events were not delivered")

        self._count("published")
        taken = False
        try:
            taken = self._outbox.send(record, report)
        finally:
            if not taken:
                self._count("published", -1)
        return taken

    def wait_for_room(self, size: int, seconds: float) -> bool:
        """Wait for room in the queue as ``block_seconds`` and ``on_error`` say."""
        return self._outbox.wait_for_room(size, seconds, again=self.raises)

    def queue_is_full(self) -> str:
        """Why, for a person."""
        return (
            f"{self._outbox.waiting:,} events wait for the broker at {self._bootstrap}, which does "
            "not take them fast enough. Is it running, and does the topic "
            f"{self.topic} exist (`retrail topics create`)?"
        )

    def shown(self, kind: Literal["reasoning", "answer"], text: str) -> Shown:
        """What of a text may leave the process."""
        result = shown(text, self._policies[kind])
        if result.failure is not None:
            self._count("redaction_failures")
            self._complaints.add(
                "redaction", f"a redaction hook failed ({result.failure}); the text is withheld"
            )
        return result

    def refuse(self, error: Exception, trajectory_id: str, seq: int, kind: str) -> None:
        """An event was not queued: raise, or drop it where everyone can see it."""
        known = isinstance(error, PublishError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        if self.raises:
            if known:
                raise error
            raise PublishError(f"This {kind} event cannot be published. {why}") from error
        self._count("dropped")
        self._lost(LostEvent(trajectory_id, seq, kind, why), "events were dropped")

    def complain(self, what: str, error: Exception) -> None:
        """Log an error that must not be raised."""
        self._complaints.add(what, f"{what}: {error}")

    def _lost(self, event: LostEvent, what: str) -> None:
        self._complaints.add(
            what + event.error[:40],
            f"{what}: {event.type} {event.seq} of trajectory {event.trajectory_id}: {event.error}",
        )
        if self._on_failure is None:
            return
        try:
            self._on_failure(event)
        except Exception:
            log.exception("on_failure failed")

    def _raise_failures(self) -> None:
        with self._counting:
            failed = self._counts["failed"] - self._raised
            self._raised += failed
        if failed and self.raises:
            raise NotDelivered(
                f"{failed:,} events were not delivered to {self._bootstrap} within "
                f"{self._delivery_seconds:g} s, or before the publisher was closed.",
                failed,
            )

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


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ConfigurationError(f"{what}.")
