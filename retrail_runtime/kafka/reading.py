"""Read a topic to its end, or record by record."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from retrail_runtime.kafka.clients import STALL_SECONDS, consumer, error_message
from retrail_runtime.retry import retrying
from schemas.base import SKIPPED, DeadLetter
from schemas.errors import BrokerUnavailableError, RestartRequiredError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics

BATCH = 1000

_ELECTING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


_UNDECODABLE = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED)


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


def offsets(
    consumer: Consumer, topic: str, *, timeout: float = STALL_SECONDS
) -> dict[int, tuple[int, int]]:
    """First and end offset of each partition of ``topic``.

    The end is the last stable offset: that of the next record, or of the first one of a transaction
    that is open.

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


def skipped(settings: Settings, topic: str, partition: int) -> set[int]:
    """Offsets that `retrail dlq skip` put on record, for batches that cannot be decoded.

    Raises:
        BrokerUnavailableError, TopicMismatchError: as :func:`read_to_end`.
    """
    queue = Topics.of(settings).trajectory_events_dlq
    letters = (DeadLetter.read(letter.headers) for letter in read_to_end(settings, queue))
    return {
        letter.offset
        for letter in letters
        if (letter.reason, letter.topic, letter.partition) == (SKIPPED, topic, partition)
    }


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
        RestartRequiredError: a batch cannot be decoded.
        BrokerUnavailableError: the message carries any other error.
    """
    error = message.error()
    if error is not None and error.code() in _UNDECODABLE:
        raise RestartRequiredError(
            f"{message.topic()}/{message.partition()} cannot be decoded from offset "
            f"{message.offset()} on: {error.str()}. Restore the partition's log from another "
            "replica or a copy.",
            topic=message.topic(),
            partition=message.partition(),
        )
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
