"""The queue between an agent and Kafka: librdkafka's bounded queue and a delivery thread.

Callers only enqueue. No loss is silent: every event that cannot be delivered is raised, or logged,
counted and passed to ``on_failure``.
"""

import asyncio
import atexit
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import util as multiprocessing_util
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from retrail.config import FIXED, Limits, Timeout
from retrail.errors import ClosedError, DeliveryError, PublishError, QueueFullError
from retrail.reporting import LibrdkafkaLog, LostEvent, RateLimitedLog, Stats
from retrail.wire import MAX_EVENT_BYTES, Record

POLL_SECONDS = 0.1
"""Longest wait of the delivery thread in librdkafka; a delivery report ends it."""
ROOM_SECONDS = 0.02
"""Longest wait of a caller before it tries again: librdkafka frees a record's space only after the
callback of its delivery report, so a notification from that callback may be too early."""

EventName = tuple[str, int | None, str]
"""Trajectory id, seq and type of an event."""

log = logging.getLogger("retrail")

_open: set["Outbox"] = set()
_abandoned: list[Producer] = []


class Outbox:
    """Sends records to topics; thread-safe; starts empty in a forked child.

    Args:
        config: librdkafka properties that reach the brokers.
        topic: topic of the records, unless :meth:`enqueue` gets another.
        limits: bounds of the queue.
        timeout: how long to wait for space, for deliveries, and at exit.
        raises: whether an event that cannot be published raises; otherwise it is dropped.
        on_failure: called with each lost event that is not raised.

    Raises:
        KafkaException: librdkafka refuses ``config``.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        topic: str,
        limits: Limits,
        timeout: Timeout,
        raises: bool,
        on_failure: Callable[[LostEvent], None] | None,
    ) -> None:
        self.topic, self.timeout, self.raises = topic, timeout, raises
        self.bootstrap: str = config["bootstrap.servers"]
        self._on_failure = on_failure
        self._config = (
            {
                "client.id": "retrail",
                "linger.ms": 5,
                "message.max.bytes": MAX_EVENT_BYTES,
                "message.timeout.ms": max(1, int(timeout.delivery * 1000)),
                "queue.buffering.max.messages": limits.events,
                "queue.buffering.max.kbytes": -(-limits.bytes // 1024),
            }
            | config
            | dict(FIXED)
        )
        self._reset()
        self._started()
        _open.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._producer: Producer | None = None
        self._poller: _DeliveryThread | None = None
        self._closed = self._stuck = False
        self._log = RateLimitedLog()
        self._raised = 0
        self._counts = dict.fromkeys(
            ("published", "delivered", "failed", "dropped", "redaction_failures"), 0
        )

    # -- Enqueueing -----------------------------------------------------------------------------

    def publish(self, attempt: Callable[[], bool]) -> None:
        """Retry an attempt to enqueue until there is space, for at most ``timeout.block`` seconds.

        There is one attempt only where waiting would block others: in a thread that runs an event
        loop, and in a delivery callback. If events are dropped, there is also one attempt after a
        wait without success, until the broker accepts a record.

        Raises:
            QueueFullError: there was no space.
        """
        deadline = time.monotonic() + self.timeout.block
        while not attempt():
            left = deadline - time.monotonic()
            if left <= 0 or not self._may_wait():
                self._stuck = self._stuck or left <= 0
                raise QueueFullError(
                    f"{self.waiting:,} events wait for the broker at {self.bootstrap}. Check that "
                    f"it is running and that the topic {self.topic} exists "
                    "(`retrail topics create`).",
                    self.waiting,
                )
            with self._changed:
                self._changed.wait(min(left, ROOM_SECONDS))

    def _may_wait(self) -> bool:
        if self._stuck and not self.raises:
            return False
        return not _in_delivery_thread() and not _in_event_loop()

    def enqueue(
        self,
        record: Record,
        topic: str | None = None,
        on_delivery: Callable[[bool], object] | None = None,
    ) -> bool:
        """Put a record into the queue, or return ``False`` if it is full; never blocks.

        Args:
            on_delivery: called once by the delivery thread: whether the broker acknowledged it.

        Raises:
            ClosedError: the publisher was closed.
            KafkaException: librdkafka refuses the record.
            RuntimeError: no thread can be started.
        """
        with self._changed:
            if self._closed:
                raise ClosedError("The publisher is closed; make a new one.")
            self._counts["published"] += 1
        try:
            self._produce(record, topic or self.topic, on_delivery)
        except BaseException as error:
            with self._changed:
                self._counts["published"] -= 1
                self._changed.notify_all()
            if isinstance(error, BufferError):
                return False
            raise
        return True

    def _produce(
        self, record: Record, topic: str, on_delivery: Callable[[bool], object] | None
    ) -> None:
        # Not the record itself: librdkafka has copied its bytes already.
        event = (record.trajectory_id, record.seq, record.event)
        report = partial(self._reported, event, on_delivery)
        for _ in range(2):
            producer = self._started()
            try:
                producer.produce(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=record.headers,
                    on_delivery=report,
                )
                return
            except KafkaException as error:
                # After a fatal error an idempotent producer accepts no record.
                if not error.args[0].fatal():
                    raise
                fatal = error
                self._replace(producer)
        raise fatal

    # -- Losses ---------------------------------------------------------------------------------

    def refuse(self, error: Exception, trajectory_id: str, seq: int | None, event: str) -> None:
        """Raise the error, or drop the event: log, count, call ``on_failure``.

        Raises:
            PublishError: if errors are to be raised.
        """
        if not isinstance(error, PublishError):
            cause, error = error, PublishError(f"{type(error).__name__}: {error}")
            error.__cause__ = cause
        error.trajectory_id, error.event = trajectory_id, event
        if self.raises:
            raise error
        self.count("dropped")
        self._lose(LostEvent(trajectory_id, seq, event, str(error)), "events were dropped")

    def count(self, name: str) -> None:
        """Increment a count of :meth:`stats`."""
        with self._changed:
            self._counts[name] += 1

    def warn(self, kind: str, what: object) -> None:
        """Log an error that must not be raised."""
        self._log.add(kind, f"{kind}: {what}")

    def _reported(
        self,
        event: EventName,
        on_delivery: Callable[[bool], object] | None,
        error: KafkaError | None,
        _message: Message,
    ) -> None:
        # The callback comes first, so that it has run when a flush ends.
        try:
            if error is not None:
                self._lose(LostEvent(*event, _reason(error)), "events were not delivered")
        finally:
            with self._changed:
                self._counts["delivered" if error is None else "failed"] += 1
                self._stuck = self._stuck and error is not None
                self._changed.notify_all()
            if on_delivery is not None:
                on_delivery(error is None)

    def _lose(self, event: LostEvent, what: str) -> None:
        self._log.add(what + event.error[:40], f"{what}: {event}")
        if self._on_failure is None:
            return
        try:
            self._on_failure(event)
        except Exception:
            log.exception("on_failure failed")

    # -- Counts, flush, close -------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Records that are neither delivered nor failed."""
        return self._counts["published"] - self._counts["delivered"] - self._counts["failed"]

    def stats(self) -> Stats:
        """Counts of the events so far."""
        with self._changed:
            return Stats(**self._counts, waiting=self.waiting)

    def flush(self, seconds: float) -> int:
        """Wait at most ``seconds`` until no event is waiting; returns how many still are."""
        with self._changed:
            if not _in_delivery_thread():
                self._changed.wait_for(lambda: self.waiting == 0, seconds)
            return self.waiting

    def close(self, seconds: float) -> None:
        """Accept no more records, flush, and fail the rest; may be called again."""
        with self._changed:
            self._closed = True
        left = self.flush(seconds)
        producer, poller = self._producer, self._poller
        if left and producer is not None:
            producer.purge()
            self.flush(1.0)
            self.warn("the publisher was closed too early", f"{left:,} events were not delivered")
        self._producer = self._poller = None
        _open.discard(self)
        if poller is not None and not _in_delivery_thread():
            poller.join(1.0)

    def raise_failures(self) -> None:
        """Raise if events have failed since the last call and errors are to be raised.

        Raises:
            DeliveryError: with their number.
        """
        with self._changed:
            failed = self._counts["failed"] - self._raised
            self._raised += failed
        if failed and self.raises:
            raise DeliveryError(
                f"{failed:,} events were not delivered to {self.bootstrap} in time, or before the "
                "publisher was closed.",
                failed,
            )

    # -- Producers ------------------------------------------------------------------------------

    def _started(self) -> Producer:
        producer = self._producer
        if producer is None:
            with self._starting:
                if self._closed:
                    raise ClosedError("The publisher is closed; make a new one.")
                producer = self._producer or self._start()
        return producer

    def _start(self) -> Producer:
        producer = Producer(self._config | {"logger": LibrdkafkaLog()})
        poller = _DeliveryThread(self._poll, producer)
        # Set before the start, because the thread runs while its producer is the current one.
        self._producer, self._poller = producer, poller
        try:
            poller.start()
        except RuntimeError:
            self._producer = self._poller = None
            raise
        if multiprocessing.parent_process() is not None:
            # Such a process exits with os._exit, which skips atexit.
            multiprocessing_util.Finalize(
                None, self.close, args=(self.timeout.close,), exitpriority=10
            )
        return producer

    def _replace(self, broken: Producer) -> None:
        with self._starting:
            if self._producer is broken:
                self._producer = None
                broken.purge()

    def _poll(self, producer: Producer) -> None:
        while self._producer is producer or len(producer):
            try:
                producer.poll(POLL_SECONDS)
            except Exception:
                log.exception("a delivery report failed")

    def abandon(self) -> None:
        """In a forked child: drop the parent's producer and queue without calling them."""
        closed, producer = self._closed, self._producer
        if producer is not None:
            # Its threads exist in the parent only; destroying it would wait for them forever.
            _abandoned.append(producer)
        self._reset()
        self._closed = closed


class _DeliveryThread(threading.Thread):
    """Runs delivery callbacks; code in it must not wait for deliveries or space."""

    def __init__(self, poll: Callable[[Producer], None], producer: Producer) -> None:
        super().__init__(target=poll, args=(producer,), name="retrail-delivery", daemon=True)


def _in_delivery_thread() -> bool:
    return isinstance(threading.current_thread(), _DeliveryThread)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _reason(error: KafkaError) -> str:
    if error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
        return "the publisher was closed before the broker took it"
    return error.str()


def _abandon_all() -> None:
    for outbox in list(_open):
        outbox.abandon()


def _close_all() -> None:
    deadlines = [(outbox, time.monotonic() + outbox.timeout.close) for outbox in list(_open)]
    for outbox, deadline in deadlines:
        outbox.close(max(0.0, deadline - time.monotonic()))


atexit.register(_close_all)
os.register_at_fork(after_in_child=_abandon_all)
