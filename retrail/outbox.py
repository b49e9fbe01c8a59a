"""A bounded queue in front of a librdkafka producer, emptied by a thread of its own.

Callers only enqueue. The bounds are ours and not librdkafka's, because a caller must be able to
wait for room, and librdkafka tells nobody when there is some.
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

from retrail.complaints import Complaints
from retrail.connection import FIXED
from retrail.errors import PublisherClosedError
from retrail.wire import MAX_EVENT_BYTES, Record

POLL_SECONDS = 0.1
"""How long the poller sleeps in librdkafka; a delivery wakes it."""

Report = Callable[[str | None], None]
"""Told once a record: nothing, or why it was not delivered."""

log = logging.getLogger("retrail")

_open: set["Outbox"] = set()
_abandoned: list[Producer] = []


class Outbox:
    """Sends records to topics; safe from threads, and anew in a forked child.

    Args:
        config: librdkafka properties that reach the brokers.
        max_events, max_bytes: how much may wait; one record always may.
        delivery_seconds: after which a record that the broker has not taken is given up.
        close_seconds: how long the end of the process may wait for deliveries.
        forked: called in a forked child, where the outbox starts empty.

    Raises:
        KafkaException: librdkafka refuses ``config``.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        max_events: int,
        max_bytes: int,
        delivery_seconds: float,
        close_seconds: float,
        forked: Callable[[], None],
    ) -> None:
        self._max_events, self._max_bytes = max_events, max_bytes
        self._close_seconds, self._forked = close_seconds, forked
        self._config = (
            {
                "client.id": "retrail",
                "linger.ms": 5,
                "message.max.bytes": MAX_EVENT_BYTES,
                "message.timeout.ms": max(1, int(delivery_seconds * 1000)),
                # Above ours, so that ours are the ones that are met.
                "queue.buffering.max.messages": max_events + 1000,
                "queue.buffering.max.kbytes": 2 * max_bytes // 1024 + 16 * 1024,
            }
            | config
            | dict(FIXED)
        )
        self._start_afresh()
        self._started()
        _open.add(self)

    def _start_afresh(self) -> None:
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._producer: Producer | None = None
        self._poller: threading.Thread | None = None
        self._closed = False
        self._waited_in_vain = False
        self._events = self._bytes = 0

    @property
    def waiting(self) -> int:
        """Records that are neither delivered nor given up."""
        return self._events

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called in this process."""
        return self._closed

    def wait_for_room(self, size: int, seconds: float, *, again: bool) -> bool:
        """Wait until a record of ``size`` bytes fits; ``False`` if it still does not.

        Returns at once where waiting would hang more than the caller: in a thread that runs an
        event loop, in the poller's own (a delivery callback), and, unless ``again``, while an
        earlier wait was in vain and nothing has been delivered since.
        """
        with self._changed:
            if self._waited_in_vain and not again:
                seconds = 0
            if self._fits(size) or seconds <= 0 or self._in_poller() or _runs_an_event_loop():
                return self._fits(size)
            fits = self._changed.wait_for(lambda: self._fits(size) or self._closed, seconds)
            self._waited_in_vain = not fits
            return fits

    def send(self, record: Record, report: Report, topic: str) -> bool:
        """Enqueue a record for a topic; ``False`` if there is no room for it now. Never blocks.

        Raises:
            BufferError: librdkafka's own queue is full; its bounds were set below ours.
            KafkaException: librdkafka refuses the record.
            PublisherClosedError: it was closed just now.
            RuntimeError: no thread can be started any more.
        """
        with self._changed:
            if self._closed or not self._fits(record.size):
                return False
            self._events += 1
            self._bytes += record.size
        try:
            self._produce(record, topic, partial(self._reported, record.size, report))
        except BaseException:
            self._release(record.size)
            raise
        return True

    def flush(self, seconds: float) -> int:
        """Wait until all is delivered or given up, at most ``seconds``; how many still wait."""
        with self._changed:
            if not self._in_poller():
                self._changed.wait_for(lambda: self._events == 0, seconds)
            return self._events

    def close(self, seconds: float) -> None:
        """Take nothing more, flush, and give up what is left; may be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        left = self.flush(seconds)
        producer, poller = self._producer, self._poller
        if left and producer is not None:
            producer.purge()
            self.flush(1.0)
        self._producer = self._poller = None
        _open.discard(self)
        if poller is not None and not self._in_poller():
            poller.join(1.0)

    def _fits(self, size: int) -> bool:
        if self._events == 0:
            return True
        return self._events < self._max_events and self._bytes + size <= self._max_bytes

    def _produce(
        self,
        record: Record,
        topic: str,
        delivered: Callable[[KafkaError | None, Message], None],
    ) -> None:
        for _ in range(2):
            producer = self._started()
            try:
                producer.produce(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=record.headers,
                    on_delivery=delivered,
                )
                return
            except KafkaException as error:
                # An idempotent producer that lost its sequence takes nothing more, ever.
                if not error.args[0].fatal():
                    raise
                fatal = error
                self._replace(producer)
        raise fatal

    def _started(self) -> Producer:
        producer = self._producer
        if producer is None:
            with self._starting:
                if self._closed:
                    raise PublisherClosedError("The publisher was closed meanwhile.")
                producer = self._producer or self._start()
        return producer

    def _start(self) -> Producer:
        producer = Producer(self._config | {"logger": _LibrdkafkaLog()})
        poller = threading.Thread(
            target=self._poll, args=(producer,), name="retrail-delivery", daemon=True
        )
        # Before the start: the poller goes on while it serves the current producer.
        self._producer, self._poller = producer, poller
        try:
            poller.start()
        except RuntimeError:
            self._producer = self._poller = None
            raise
        if multiprocessing.parent_process() is not None:
            # Such a process ends by os._exit, which skips atexit.
            multiprocessing_util.Finalize(
                None, self.close, args=(self._close_seconds,), exitpriority=10
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

    def _reported(
        self, size: int, report: Report, error: KafkaError | None, _message: Message
    ) -> None:
        # The report first: whoever saw a flush end may read what was counted.
        try:
            report(None if error is None else _why(error))
        finally:
            self._release(size, delivered=error is None)

    def _release(self, size: int, *, delivered: bool = False) -> None:
        with self._changed:
            self._events -= 1
            self._bytes -= size
            if delivered:
                self._waited_in_vain = False
            self._changed.notify_all()

    def _in_poller(self) -> bool:
        return threading.current_thread() is self._poller

    def abandon(self) -> None:
        """In a forked child: forget the parent's producer and queue, without touching them."""
        closed, producer = self._closed, self._producer
        if producer is not None:
            # Its threads stayed in the parent; destroying it would wait for them.
            _abandoned.append(producer)
        self._start_afresh()
        self._closed = closed
        self._forked()


def _why(error: KafkaError) -> str:
    if error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
        return "the publisher was closed before the broker took it"
    return error.str()


class _LibrdkafkaLog:
    """librdkafka's logger; it repeats itself every second while a broker is away."""

    def __init__(self) -> None:
        self._complaints = Complaints()

    def log(self, level: int, message: str, *args: object) -> None:
        self._complaints.add(str(args[:1]), message % args, level=level)


def _runs_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _abandon_all() -> None:
    for outbox in list(_open):
        outbox.abandon()


def _close_all() -> None:
    deadlines = [(outbox, time.monotonic() + outbox._close_seconds) for outbox in list(_open)]
    for outbox, deadline in deadlines:
        outbox.close(max(0.0, deadline - time.monotonic()))


atexit.register(_close_all)
os.register_at_fork(after_in_child=_abandon_all)
