"""One build follows ``documents``: encode, upsert, dead-letter what is invalid, then commit.

Offsets are committed once Milvus has acknowledged the rows, so a killed worker repeats at most one
chunk, and rows are upserts, so a repetition changes nothing.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cached_property

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from consumers.indexing import metrics
from consumers.indexing.collection import CollectionLostError
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from consumers.tasks import StoppedError
from retrail_runtime import kafka
from retrail_runtime.milvus import Build
from schemas.base import Change, DeadLetter
from schemas.documents import Document, read_change
from schemas.errors import InvalidRecordError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

FIRST_CHUNK, LARGEST_CHUNK = 16, 256
"""Records between two commits."""
CHUNK_SECONDS = 10.0
"""Longest time that a chunk should take; ``max.poll.interval.ms`` is 30 times that."""
POLL_SECONDS = 0.5
"""Longest wait for a record; a worker that stops ends after it."""
METADATA_SECONDS = 5.0
"""New partitions are found after this time at most."""

_REASSIGNED = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._ASSIGNMENT_LOST,
)
"""The partitions were reassigned: their new owner reads the chunk again."""


def next_chunk(size: int, seconds: float, wanted: float = CHUNK_SECONDS) -> int:
    """Size of the next chunk, after one of ``size`` records took ``seconds``.

    A slow encoder gets small chunks, so that the worker polls before the group removes it.

    Args:
        wanted: longest time that a chunk should take.
    """
    if seconds > wanted:
        return max(1, size // 2)
    return min(LARGEST_CHUNK, size * 2) if seconds < wanted / 4 else size


class DeadLetters:
    """Sends invalid records of ``documents`` to ``documents.dlq``; safe to share between threads.

    Every build reads the topic from its start and meets the same records. A record is sent again
    only if the queue does not hold it any more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue = Topics.of(settings).documents_dlq
        self._lock = threading.Lock()
        self._next: dict[int, int] = {}
        self._sent: set[bytes] = set()

    @cached_property
    def _producer(self) -> Producer:
        return kafka.producer(self._settings)

    def send(self, invalid: Sequence[tuple[kafka.Record, str]]) -> None:
        """Send the records that the queue does not hold; returns once all are acknowledged.

        Args:
            invalid: records and their errors.

        Raises:
            DeliveryError: Kafka did not acknowledge one.
            BrokerUnavailableError, TopicMismatchError: the queue cannot be read.
        """
        if not invalid:
            return
        with self._lock:
            for found in kafka.read_to_end(self._settings, self._queue, self._next):
                self._next[found.partition] = found.offset + 1
                letter = DeadLetter.read(found.headers)
                self._sent.add(_digest(letter.partition, letter.offset, found))
            fresh = [
                (record, error)
                for record, error in invalid
                if _digest(record.partition, record.offset, record) not in self._sent
            ]
            kafka.send_all(self._producer, self._queue, (_letter(*one) for one in fresh))
        metrics.DEAD_LETTERS.inc(len(fresh))
        for record, error in fresh:
            log.warning(
                "document dead-lettered",
                topic=self._queue,
                partition=record.partition,
                offset=record.offset,
                error=error,
            )


def _digest(partition: int, offset: int, record: kafka.Record) -> bytes:
    """Identifies a record by place and content: offsets start again when a topic is recreated."""
    content = record.key or b"", record.value or b""
    return hashlib.sha256(repr((partition, offset, *content)).encode()).digest()[:16]


def _letter(record: kafka.Record, error: str) -> kafka.Outgoing:
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stage="index",
        reason="invalid_document",
        exception=InvalidRecordError.__name__,
        message=error,
    )
    return kafka.Outgoing(record.key, record.value, letter.headers(record.headers))


class Ingest:
    """A member of a build's consumer group.

    Attributes:
        moved_at: last progress on the monotonic clock: a batch of the encoder, or a poll of the
            topic.
        loaded: whether the model is loaded.
    """

    def __init__(
        self,
        settings: Settings,
        build: Build,
        group: str,
        embedder: Callable[[], Embedder],
        milvus: Milvus,
        letters: DeadLetters,
        *,
        chunk_seconds: float = CHUNK_SECONDS,
    ) -> None:
        self._settings = settings
        self._chunk_seconds = chunk_seconds
        self._build = build
        self._group = group
        self._embedder = embedder
        self._milvus = milvus
        self._letters = letters
        self._topic = Topics.of(settings).documents
        self._positions: dict[int, int] = {}
        self.moved_at = time.monotonic()
        self.loaded = False
        self._stopping = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Follow until stopped (within one batch of the encoder), or collection or topic are lost.

        Raises:
            BrokerUnavailableError, DeliveryError, KafkaException: Kafka failed.
            ModelError: the model cannot be loaded.
            RestartRequiredError: Milvus was lost for too long, or a batch cannot be decoded.
        """
        self._stopping = stopping
        try:
            embedder = self._embedder()
            self.moved_at, self.loaded = time.monotonic(), True
            reader = kafka.consumer(
                self._settings,
                self._group,
                enable_partition_eof=True,
                heartbeat_interval_ms=500,
                max_poll_interval_ms=int(30_000 * self._chunk_seconds),
                topic_metadata_refresh_interval_ms=int(1000 * METADATA_SECONDS),
            )
            with closing(reader):
                self._follow(reader, embedder)
        except StoppedError:
            pass
        except CollectionLostError:
            log.warning("collection lost", collection=self._build.collection)
        except TopicMismatchError as error:
            log.warning("topic lost", collection=self._build.collection, error=str(error))

    def _follow(self, reader: Consumer, embedder: Embedder) -> None:
        reader.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        size = FIRST_CHUNK
        while not self._stopping.is_set():
            messages = kafka.ready(self._settings, reader, POLL_SECONDS, size)
            self.moved_at = started = time.monotonic()
            if messages:
                self._process(reader, messages, embedder)
                size = next_chunk(size, time.monotonic() - started, self._chunk_seconds)

    def _process(self, reader: Consumer, messages: Sequence[Message], embedder: Embedder) -> None:
        """Bring the collection to the state after ``messages``, then commit.

        1. Read each record; the last one of an id counts.
        2. Encode and upsert existing documents, delete the others.
        3. Dead-letter invalid records.
        4. Commit.
        """
        ahead: dict[int, int] = {}
        changes: dict[str, Change[Document]] = {}
        invalid: list[tuple[kafka.Record, str]] = []
        for message in messages:
            if (error := message.error()) and error.code() == KafkaError._MAX_POLL_EXCEEDED:
                log.warning("chunk took too long, rejoining", collection=self._build.collection)
                continue
            partition, offset = kafka.place(message)
            if error is not None:
                ahead[partition] = offset
                continue
            if offset < self._positions.get(partition, 0):
                continue
            ahead[partition] = offset + 1
            record = kafka.record(message)
            change = read_change(record.key, record.value)
            if change.error:
                invalid.append((record, change.error))
            if change.key is not None:
                changes[change.key] = change
        self._apply(changes, embedder)
        self._letters.send(invalid)
        self._commit(reader, ahead)

    def _apply(self, changes: Mapping[str, Change[Document]], embedder: Embedder) -> None:
        version = str(self._build.version)
        documents = [change.value for change in changes.values() if change.value is not None]
        if documents:
            rows = embedder.rows(documents, self._check)
            upserted = self._milvus.upsert(self._build, rows)
            metrics.ROWS_UPSERTED.labels(version).inc(upserted)
        gone = [doc_id for doc_id, change in changes.items() if change.value is None]
        if gone:
            deleted = self._milvus.delete(self._build, gone)
            metrics.ROWS_DELETED.labels(version).inc(deleted)

    def _commit(self, reader: Consumer, ahead: Mapping[int, int]) -> None:
        moved = {p: offset for p, offset in ahead.items() if self._positions.get(p) != offset}
        if not moved:
            return
        offsets = [TopicPartition(self._topic, p, offset) for p, offset in moved.items()]
        try:
            reader.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _REASSIGNED:
                raise
            log.info("partitions reassigned before the commit", collection=self._build.collection)
            return
        self._positions |= moved
        for partition in moved:
            self._set_lag(reader, partition)

    def _set_lag(self, reader: Consumer, partition: int) -> None:
        marks = reader.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        if marks is not None and marks[1] >= 0:
            lag = max(0, marks[1] - self._positions[partition])
            metrics.LAG.labels(self._build.collection, str(partition)).set(lag)

    def _on_assign(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._log("partitions assigned", partitions)

    def _on_revoke(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._log("partitions revoked", partitions)
        for partition in partitions:
            self._positions.pop(partition.partition, None)
            metrics.LAG.remove(self._build.collection, str(partition.partition))

    def _log(self, event: str, partitions: Sequence[TopicPartition]) -> None:
        numbers = sorted(partition.partition for partition in partitions)
        log.info(event, collection=self._build.collection, partitions=numbers)

    def _check(self, *_: object) -> None:
        self.moved_at = time.monotonic()
        if self._stopping.is_set():
            raise StoppedError("the build is no longer followed")
