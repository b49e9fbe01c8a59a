"""Kafka as the consumers use it: read to its end, acknowledged when written."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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

from schemas.errors import BrokerUnavailableError, RetrailError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES

log = structlog.get_logger(__name__)

BATCH = 1000
STALL_SECONDS = 30.0
"""Silence of the brokers after which a bounded read or write gives up."""

TANSU = "tansu_cluster"
"""Cluster id of the broker for try-outs, which tells the end of a partition as the offset of its
last batch, plus one. What a fetch tells is right."""

_ELECTING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)

REPORT_SECONDS = 10.0
"""Between two reports of one kind of connection trouble."""

_reported: dict[int, float] = {}

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


class DeliveryError(RetrailError):
    """The brokers did not confirm a record: it may or may not be on the topic."""


def consumer(
    settings: Settings,
    group: str | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
    **overrides: Any,
) -> Consumer:
    """A consumer that commits only when told to.

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
    """Write one record; returns its offset once all replicas have it.

    Raises:
        DeliveryError: the brokers refused it, or did not answer in time.
    """
    offsets: list[int] = []
    failures: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error.str())
        elif (offset := message.offset()) is not None:
            offsets.append(offset)

    try:
        producer.produce(topic, value=value, key=key, headers=list(headers), on_delivery=delivered)
    except (KafkaException, BufferError) as error:
        raise DeliveryError(f"Kafka did not take a record for {topic}: {error}") from error
    producer.flush(STALL_SECONDS + 5)
    if not offsets:
        reason = failures[0] if failures else "no answer in time"
        raise DeliveryError(f"Kafka did not acknowledge a record for {topic}: {reason}")
    return offsets[0]


def publish_all(
    producer: Producer, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]
) -> int:
    """Write (key, value) records; returns how many, once all replicas have every one.

    Raises:
        DeliveryError: the brokers refused some, or did not answer in time.
    """
    failures: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    count = 0
    for key, value in records:
        while True:
            try:
                producer.produce(topic, value=value, key=key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
            except KafkaException as error:
                raise DeliveryError(
                    f"Kafka did not take a record for {topic}: {_said(error)}"
                ) from error
        count += 1
        producer.poll(0)
        if failures:
            break
    left = producer.flush(STALL_SECONDS + 5)
    if failures or left:
        reason = failures[0] if failures else "no answer in time"
        raise DeliveryError(
            f"Kafka did not acknowledge {len(failures) + left} records for {topic}: {reason}"
        )
    return count


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
                "`retrail topics create`."
            )
        return {
            partition: _watermarks(consumer, TopicPartition(topic, partition), timeout)
            for partition in sorted(found.partitions)
        }
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka stopped answering about {topic}: {_said(error)}. Is the broker still running?"
        ) from error


def _watermarks(consumer: Consumer, partition: TopicPartition, timeout: float) -> tuple[int, int]:
    """Wait for the leader of a partition, which a new topic gets a moment after its creation."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            marks = consumer.get_watermark_offsets(partition, timeout=timeout)
        except KafkaException as error:
            if error.args[0].code() not in _ELECTING or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
            continue
        if marks is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no offsets of {partition}"))
        return marks


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
            # A record more than asked for is no harm, a record less is.
            yield from _until(reader, topic, ends, past_ends=end is None and _is_tansu(reader))
    finally:
        reader.close()


def _is_tansu(reader: Consumer) -> bool:
    try:
        return bool(reader.list_topics(timeout=STALL_SECONDS).cluster_id == TANSU)
    except KafkaException as error:
        raise BrokerUnavailableError(f"Kafka stopped answering: {_said(error)}.") from error


def _until(
    reader: Consumer, topic: str, ends: dict[int, int], *, past_ends: bool
) -> Iterator[Record]:
    """Records below ``ends`` of an assigned reader; ``ends`` loses each partition that is done.

    With ``past_ends`` what lies behind them too, until a partition has no more.
    """
    heard = time.monotonic()
    while ends:
        messages = ready(reader, 0.5)
        if not messages and time.monotonic() - heard > STALL_SECONDS:
            raise BrokerUnavailableError(
                f"Kafka sent nothing of {topic} for {STALL_SECONDS:.0f} s. Is the broker running?"
            )
        for message in messages:
            partition, offset = place(message)
            end = ends.get(partition)
            if end is None:
                continue
            more = message.error() is None
            if more and (past_ends or offset < end):
                yield record(message)
            if offset >= end - 1 and not (past_ends and more):
                del ends[partition]
        if messages:
            heard = time.monotonic()


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
        raise BrokerUnavailableError(f"Kafka failed while reading {message.topic()}: {error.str()}")
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
    # Below "critical" its log repeats what the callback is told, and goes to stderr.
    return settings.kafka() | {"error_cb": report, "log_level": 2}


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in overrides.items()}


def report(error: KafkaError) -> None:
    """Log what librdkafka says about the connection; it recovers by itself.

    It says so hundreds of times in an outage: each kind is logged once in a while.
    """
    now = time.monotonic()
    if error.fatal() or now - _reported.get(error.code(), -REPORT_SECONDS) >= REPORT_SECONDS:
        _reported[error.code()] = now
        log.warning("kafka reports", error=error.str(), fatal=error.fatal())


def _said(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
