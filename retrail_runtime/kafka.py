"""Kafka clients: read a topic to its end, send records and wait for their acknowledgement."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from retrail_runtime.logging import RateLimit
from retrail_runtime.retry import retrying
from schemas.errors import BrokerUnavailableError, DeliveryError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES, specs

log = structlog.get_logger(__name__)

BATCH = 1000
STALL_SECONDS = 30.0
"""Silence of the brokers after which a bounded read or write gives up."""

_ELECTING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)

_BATCH_OVERHEAD = 1024
"""Bytes of a record batch around its records, generously."""

_REPORTS = RateLimit(seconds=10.0)

Headers = Iterable[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic; ``timestamp`` in milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Outgoing(NamedTuple):
    """A record to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes, as a topic's ``max.message.bytes`` counts them, or a few more."""
        return record_size(self.key, self.value, self.headers)


def record_size(key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
    """Upper bound of the bytes of a batch that holds this record alone."""
    named = sum(len(name) + len(content or b"") + 10 for name, content in headers)
    return len(key or b"") + len(value or b"") + named + _BATCH_OVERHEAD


def consumer(
    settings: Settings,
    group: str | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
    **overrides: Any,
) -> Consumer:
    """A consumer without automatic commits.

    Args:
        group: full group id (``settings.group(…)``); without one the consumer is for ``assign``.
        on_error: called from ``poll`` with errors that belong to no record; by default logged.
        overrides: librdkafka options, dots as underscores.
    """
    config = {
        "group.id": group or f"{settings.topic_prefix}retrail-reader",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        "session.timeout.ms": int(settings.kafka_session_timeout * 1000),
        "heartbeat.interval.ms": max(100, int(settings.kafka_session_timeout * 1000 / 4)),
        "fetch.message.max.bytes": MAX_EVENT_BYTES + ADDED_BYTES,
    }
    callbacks = {"error_cb": on_error} if on_error else {}
    return Consumer(_connection(settings) | callbacks | config | _dotted(overrides))


def admin(settings: Settings) -> AdminClient:
    """A client for questions about topics and groups."""
    return AdminClient(_connection(settings))


def producer(settings: Settings, **overrides: Any) -> Producer:
    """An idempotent producer: acknowledged by all replicas, in order, partitioned like Java."""
    config = {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "message.max.bytes": MAX_EVENT_BYTES + ADDED_BYTES,
        "delivery.timeout.ms": int(STALL_SECONDS * 1000),
        "linger.ms": 5,
    }
    return Producer(_connection(settings) | config | _dotted(overrides))


def publish_and_wait(
    producer: Producer,
    topic: str,
    *,
    value: bytes | None,
    key: bytes | None = None,
    headers: Headers = (),
) -> int:
    """Send one record; returns its offset once all replicas have it.

    Raises:
        DeliveryError: as :func:`send_all`.
    """
    offsets: list[int] = []
    send_all(producer, topic, [Outgoing(key, value, headers)], on_delivery=offsets.append)
    return offsets[0]


def send_all(
    producer: Producer,
    topic: str,
    records: Iterable[Outgoing | tuple[bytes | None, bytes | None]],
    *,
    on_delivery: Callable[[int], object] = lambda offset: None,
) -> int:
    """Send records in their order; returns how many, once all replicas have every one.

    Args:
        records: whole ones or (key, value), taken one by one while the queue has room.
        on_delivery: called with the offset of each acknowledged record.

    Raises:
        DeliveryError: the brokers refused a record, or did not answer in time. Nothing more is
            taken from ``records``; those sent before it may be on the topic.
    """
    sent = acknowledged = 0
    reason = ""

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal acknowledged, reason
        if error is not None:
            reason = reason or error.str()
        else:
            acknowledged += 1
            on_delivery(message.offset() or 0)

    for record in records:
        _produce(producer, topic, Outgoing(*record), delivered)
        sent += 1
        if reason:
            break
    producer.flush(STALL_SECONDS + 5)
    if acknowledged < sent:
        raise DeliveryError(
            f"Kafka did not acknowledge {sent - acknowledged:,} records for {topic}: "
            f"{reason or 'no answer in time'}. Sending them again is safe.",
            topic=topic,
        )
    return sent


def _produce(
    producer: Producer,
    topic: str,
    record: Outgoing,
    delivered: Callable[[KafkaError | None, Message], None],
) -> None:
    """Enqueue a record, after waiting for room in the producer's queue."""
    while True:
        try:
            producer.produce(
                topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=delivered,
            )
        except BufferError:
            producer.poll(0.1)
        except KafkaException as error:
            raise DeliveryError(
                f"Kafka did not take a record for {topic}: {error_message(error)}", topic=topic
            ) from error
        else:
            producer.poll(0)
            return


def partition_counts(settings: Settings, timeout: float = 10.0) -> dict[str, int]:
    """Number of partitions of each topic on the cluster.

    Raises:
        BrokerUnavailableError: nothing answers at the bootstrap address within ``timeout`` seconds.
    """
    # What librdkafka would log is in the exception.
    quiet = logging.getLogger(f"{__name__}.librdkafka")
    quiet.setLevel(logging.CRITICAL)
    try:
        found = AdminClient(settings.kafka(), logger=quiet).list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka does not answer at {settings.kafka_bootstrap} ({error_message(error)}). Start "
            "a local stack with `retrail up`, or set RETRAIL_KAFKA_BOOTSTRAP (and "
            "RETRAIL_KAFKA_SECURITY_PROTOCOL, if it is secured) to a cluster that runs."
        ) from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def require_broker(
    settings: Settings,
    topics: Iterable[str] | None = None,
    *,
    keyed_alike: bool = False,
    timeout: float = 10.0,
) -> dict[str, int]:
    """Fail fast if Kafka does not answer, or lacks topics.

    Args:
        topics: those that the caller needs; by default all of the installation.
        keyed_alike: they must have the same number of partitions, because the caller writes to the
            partition that it reads.
        timeout: seconds to wait for an answer.

    Returns:
        Number of partitions of each topic in ``topics``.

    Raises:
        BrokerUnavailableError: nothing answers at the bootstrap address.
        TopicMismatchError: topics do not exist, or their numbers of partitions differ.
    """
    wanted = [spec.name for spec in specs(settings)] if topics is None else list(topics)
    found = partition_counts(settings, timeout)
    if missing := [name for name in wanted if name not in found]:
        raise TopicMismatchError(
            f"Kafka at {settings.kafka_bootstrap} has no topic {', '.join(missing)}. Create what "
            "is missing with `retrail topics create`.",
            topic=missing[0],
        )
    counts = {name: found[name] for name in wanted}
    if keyed_alike and len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {number}" for name, number in counts.items())
        raise TopicMismatchError(
            f"These topics need the same number of partitions: {listed}. Use a new "
            "RETRAIL_TOPIC_PREFIX and `retrail topics create`."
        )
    return counts


def offsets(
    consumer: Consumer, topic: str, *, timeout: float = STALL_SECONDS
) -> dict[int, tuple[int, int]]:
    """First and end offset of each partition of ``topic`` (``end`` is that of the next record).

    Args:
        timeout: seconds to wait for each answer.

    Raises:
        BrokerUnavailableError: the brokers do not answer.
        TopicMismatchError: there is no such topic.
    """
    try:
        found = consumer.list_topics(topic, timeout=timeout).topics[topic]
        if found.error is not None:
            raise TopicMismatchError(
                f"Kafka has no topic {topic} ({found.error.str()}). Create what is missing with "
                "`retrail topics create`.",
                topic=topic,
            )
        return {
            partition: _watermarks(consumer, TopicPartition(topic, partition), timeout)
            for partition in sorted(found.partitions)
        }
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka stopped answering about {topic}: {error_message(error)}. Is the broker up?",
            topic=topic,
        ) from error


def _watermarks(consumer: Consumer, partition: TopicPartition, timeout: float) -> tuple[int, int]:
    """Wait for the leader of a partition, which a new topic gets a moment after its creation."""
    marks = retrying(_is_electing, seconds=timeout, longest=0.1)(
        consumer.get_watermark_offsets, partition, timeout=timeout
    )
    if marks is None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no offsets of {partition}"))
    return marks


def _is_electing(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _ELECTING


def read_to_end(
    settings: Settings,
    topic: str,
    start: Mapping[int, int] | None = None,
    end: Mapping[int, int] | None = None,
) -> Iterator[Record]:
    """Every record up to the end offsets at the call, each partition in order, then stop.

    Holes (compaction, aborted transactions) and records that arrive meanwhile do no harm.

    Args:
        start: first offset wanted of a partition; by default the earliest that is kept.
        end: offset behind the last one wanted of a partition, of which no other is read; by
            default all are, to their ends.

    Raises:
        BrokerUnavailableError: the brokers do not answer.
        TopicMismatchError: there is no such topic.
    """
    reader = consumer(settings, enable_partition_eof=True)
    try:
        ends: dict[int, int] = {}
        assignment = []
        for partition, (low, high) in offsets(reader, topic).items():
            first = max(low, (start or {}).get(partition, low))
            high = high if end is None else min(high, end.get(partition, 0))
            if first < high:
                ends[partition] = high
                assignment.append(TopicPartition(topic, partition, first))
        if ends:
            reader.assign(assignment)
            yield from _until(reader, topic, ends)
    finally:
        reader.close()


def _until(reader: Consumer, topic: str, ends: dict[int, int]) -> Iterator[Record]:
    """Records below ``ends`` of an assigned reader; ``ends`` loses each partition that is done."""
    heard_at = time.monotonic()
    while ends:
        messages = ready(reader, 0.5)
        if not messages and time.monotonic() - heard_at > STALL_SECONDS:
            raise BrokerUnavailableError(
                f"Kafka sent nothing of {topic} for {STALL_SECONDS:.0f} s. Is the broker running?",
                topic=topic,
            )
        for message in messages:
            partition, offset = place(message)
            end = ends.get(partition)
            if end is None:
                continue
            if message.error() is None and offset < end:
                yield record(message)
            if offset >= end - 1:
                del ends[partition]
        if messages:
            heard_at = time.monotonic()


def ready(reader: Consumer, timeout: float, most: int = BATCH) -> list[Message]:
    """What has arrived, after waiting ``timeout`` seconds at most for the first message.

    (``Consumer.consume`` alone waits for a full batch.)
    """
    first = reader.poll(timeout)
    return [] if first is None else [first, *reader.consume(most - 1, timeout=0)]


def place(message: Message) -> tuple[int, int]:
    """Partition and offset of a message, or of the end of a partition.

    Raises:
        BrokerUnavailableError: the message carries any other error.
    """
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise BrokerUnavailableError(
            f"Kafka failed while reading {message.topic()}: {error.str()}",
            topic=message.topic(),
            partition=message.partition(),
        )
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


def record(message: Message) -> Record:
    """The record that a message without error carries."""
    partition, offset = place(message)
    return Record(
        topic=message.topic() or "",
        partition=partition,
        offset=offset,
        timestamp=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=tuple((name, value or b"") for name, value in _header_pairs(message)),
    )


def _header_pairs(message: Message) -> Iterable[tuple[str, Any]]:
    found = message.headers() or []
    return found.items() if isinstance(found, dict) else found


def _connection(settings: Settings) -> dict[str, Any]:
    # Below "critical" its log repeats what the callback gets, and goes to stderr.
    return settings.kafka() | {"error_cb": report, "log_level": 2}


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in overrides.items()}


def report(error: KafkaError) -> None:
    """Log an error of the connection, from which librdkafka recovers by itself.

    In an outage it reports hundreds: each kind is logged once in a while.
    """
    if error.fatal() or _REPORTS.allows(error.code()):
        log.warning("kafka reports", error=error.str(), fatal=error.fatal())


def error_message(error: KafkaException) -> str:
    """The text of the ``KafkaError`` in an exception."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
