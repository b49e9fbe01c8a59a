"""Read a topic to its end, or record by record."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from retrail_runtime.kafka.clients import STALL_SECONDS, consumer, error_message
from retrail_runtime.kafka.refusals import UNAUTHORIZED, failure, message_of
from retrail_runtime.metrics import DEPENDENCY_UP
from retrail_runtime.retry import retrying
from schemas.base import SKIPPED, DeadLetter
from schemas.errors import BrokerUnavailableError, RestartRequiredError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

BATCH = 1000

_ELECTING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


TOPIC_GONE = (
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
)
"""Errors of a consumer whose topic was deleted."""

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
        ConfigurationError: the user may not describe it.
        TopicMismatchError: there is no such topic.
    """
    try:
        found = consumer.list_topics(topic, timeout=timeout).topics[topic]
        if found.error is not None and found.error.code() in UNAUTHORIZED:
            raise KafkaException(found.error)
        if found.error is not None:
            raise TopicMismatchError(
                f"Kafka has no topic {topic} ({found.error.str()}). Create what is missing with "
                "`retrail topics create`.",
                topic=topic,
            )
        marks = {
            partition: _watermarks(consumer, TopicPartition(topic, partition), timeout)
            for partition in sorted(found.partitions)
        }
        DEPENDENCY_UP.labels("kafka").set(1)
        return marks
    except KafkaException as error:
        DEPENDENCY_UP.labels("kafka").set(0)
        refused = error.args[0].code() in UNAUTHORIZED
        check = "" if refused else ". Check that the broker is up."
        message = f"Kafka returned no offsets of {topic}: {error_message(error)}{check}"
        raise failure(error.args[0], message, topic) from error


def committed(
    consumer: Consumer, topic: str, partitions: Iterable[int], *, timeout: float = STALL_SECONDS
) -> dict[int, int]:
    """The committed offsets of the consumer's group, without partitions that have none.

    Raises:
        BrokerUnavailableError: the brokers do not answer.
        ConfigurationError: the user may not read them.
    """
    places = [TopicPartition(topic, partition) for partition in partitions]
    try:
        answers = consumer.committed(places, timeout=timeout)
    except KafkaException as error:
        message = f"Kafka returned no committed offsets of {topic}: {error_message(error)}"
        raise failure(error.args[0], message, topic) from error
    return {one.partition: one.offset for one in answers if one.offset >= 0}


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

    Offsets without a record (compaction, transactions) and later records are passed over.

    Args:
        start: first offset of a partition; by default the earliest that is kept.
        end: end offsets of the partitions to read; by default of all partitions, as of now.

    Raises:
        BrokerUnavailableError: the brokers do not answer.
        TopicMismatchError: there is no such topic.
        RestartRequiredError: a batch cannot be decoded.
    """
    with closing(consumer(settings, enable_partition_eof=True)) as reader:
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
            yield from _until(settings, reader, topic, ends)


def skipped(settings: Settings, topic: str, partition: int) -> set[int]:
    """Offsets that `retrail dlq skip` put on record for batches that cannot be decoded.

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


def _until(
    settings: Settings, reader: Consumer, topic: str, ends: dict[int, int]
) -> Iterator[Record]:
    """Records below ``ends`` of an assigned reader; removes finished partitions from ``ends``."""
    heard_at = time.monotonic()
    following: dict[int, int] = {}
    while ends:
        messages = ready(settings, reader, 0.5)
        if not messages and time.monotonic() - heard_at > STALL_SECONDS:
            raise BrokerUnavailableError(
                f"Kafka sent nothing of {topic} for {STALL_SECONDS:.0f} s. Check that the broker "
                "is up.",
                topic=topic,
            )
        for message in messages:
            partition, offset = place(message)
            end = ends.get(partition)
            if end is None or offset < following.get(partition, 0):
                continue
            if message.error() is None and offset < end:
                following[partition] = offset + 1
                yield record(message)
            if offset >= end - 1:
                del ends[partition]
        if messages:
            heard_at = time.monotonic()


def ready(settings: Settings, reader: Consumer, timeout: float, most: int = BATCH) -> list[Message]:
    """Messages that have arrived, after waiting up to ``timeout`` seconds for the first one.

    (``Consumer.consume`` alone waits for a full batch.) A batch that cannot be decoded is passed
    over if `retrail dlq skip` put it on record; records before it may then arrive again.

    Raises:
        RestartRequiredError: a batch cannot be decoded.
        BrokerUnavailableError: the brokers do not answer.
    """
    first = reader.poll(timeout)
    arrived = [] if first is None else [first, *reader.consume(most - 1, timeout=0)]
    messages: list[Message] = []
    passed = set()
    for message in arrived:
        error = message.error()
        # librdkafka delivers only errors and earlier records behind such a batch.
        if message.partition() in passed:
            continue
        if error is None or error.code() not in _UNDECODABLE:
            messages.append(message)
            continue
        topic, partition, offset = _where(message)
        passed.add(partition)
        reader.pause([TopicPartition(topic, partition)])
        # Records before the batch come first; then it arrives once more.
        before = any(one.partition() == partition for one in messages)
        behind = offset if before else _behind(settings, topic, partition, offset, error)
        reader.seek(TopicPartition(topic, partition, behind))
        reader.resume([TopicPartition(topic, partition)])
    return messages


def _behind(settings: Settings, topic: str, partition: int, offset: int, error: KafkaError) -> int:
    """First offset behind a batch that cannot be decoded and may be passed over.

    Raises:
        RestartRequiredError: it may not.
    """
    # Skips are on record on the queue, so its own batches need none.
    is_queue = topic == Topics.of(settings).trajectory_events_dlq
    if not is_queue and offset not in skipped(settings, topic, partition):
        raise RestartRequiredError(
            f"{topic}/{partition} cannot be decoded from offset {offset} on: {error.str()}. "
            "Restore the partition's log from another replica or a copy, or pass over these "
            f"records with `retrail dlq skip {topic} {partition} {offset}`.",
            topic=topic,
            partition=partition,
        )
    with closing(consumer(settings, enable_partition_eof=True)) as probe:

        def outside(at: int) -> bool:
            probe.assign([TopicPartition(topic, partition, at)])
            found = probe.poll(STALL_SECONDS)
            if found is None:
                raise BrokerUnavailableError(f"Kafka sent nothing of {topic}.", topic=topic)
            again = found.error()
            undecodable = again is not None and again.code() in _UNDECODABLE
            return not (undecodable and found.offset() == offset)

        later = range(offset + 1, offsets(probe, topic)[partition][1])
        behind = offset + 1 + bisect_left(later, True, key=outside)
    log.error(
        "undecodable batch passed over",
        topic=topic,
        partition=partition,
        offset=offset,
        behind=behind,
    )
    return behind


def place(message: Message) -> tuple[int, int]:
    """Partition and offset of a message, or of the end of a partition.

    Raises:
        TopicMismatchError: the topic was deleted.
        ConfigurationError: a right is missing.
        BrokerUnavailableError: the message carries any other error.
    """
    error = message.error()
    if error is not None and error.code() in TOPIC_GONE:
        raise TopicMismatchError(
            f"Kafka has no topic {message.topic()} any more: {error.str()}.", topic=message.topic()
        )
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        what = message.topic() or "its topics"
        text = f"Kafka failed while reading {what}: {message_of(error)}"
        raise failure(error, text, message.topic())
    return _where(message)[1:]


def _where(message: Message) -> tuple[str, int, int]:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return topic, partition, offset


def record(message: Message) -> Record:
    """The record that a message without error carries."""
    partition, offset = place(message)
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return Record(
        topic=message.topic() or "",
        partition=partition,
        offset=offset,
        timestamp=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=tuple((name, value or b"") for name, value in headers),
    )
