"""One build follows ``documents``: encode, upsert, then commit.

Offsets are committed once Milvus has acknowledged the rows, so a worker that is killed at any point
repeats at most one chunk, and rows are upserts, so a repetition changes nothing.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumers.errors import CollectionLostError, StoppedError
from consumers.indexing import metrics
from consumers.indexing.dead_letters import DeadLetters
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from retrail_runtime import kafka
from retrail_runtime.collection import Build
from schemas.base import Change
from schemas.documents import Document, read_change
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

CHUNK = 256
"""Records between two commits."""
POLL_SECONDS = 0.1

_REASSIGNED = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._ASSIGNMENT_LOST,
)
"""The partitions were reassigned: their new owner reads the chunk again."""


class Ingest:
    """A member of a build's consumer group."""

    def __init__(
        self,
        settings: Settings,
        build: Build,
        group: str,
        embedder: Callable[[], Embedder],
        milvus: Milvus,
    ) -> None:
        self._settings = settings
        self._build = build
        self._group = group
        self._embedder = embedder
        self._milvus = milvus
        self._topic = Topics.of(settings).documents
        self._positions: dict[int, int] = {}
        self._stopping = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Follow until stopped, which takes a batch of the encoder, or the collection is lost.

        Raises:
            BrokerUnavailableError, DeliveryError, KafkaException: Kafka failed.
            ModelError: the model cannot be loaded.
            RestartRequiredError: Milvus was lost for too long.
        """
        self._stopping = stopping
        reader = kafka.consumer(
            self._settings, self._group, enable_partition_eof=True, heartbeat_interval_ms=500
        )
        with closing(reader), closing(DeadLetters(self._settings)) as letters:
            try:
                embedder = self._embedder()
                reader.subscribe(
                    [self._topic],
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_revoke,
                )
                while not stopping.is_set():
                    messages = kafka.ready(reader, POLL_SECONDS, CHUNK)
                    if messages:
                        self._process(reader, messages, embedder, letters)
            except StoppedError:
                pass
            except CollectionLostError:
                log.warning("collection lost", collection=self._build.collection)

    def _process(
        self,
        reader: Consumer,
        messages: Sequence[Message],
        embedder: Embedder,
        letters: DeadLetters,
    ) -> None:
        """Bring the collection to the state after ``messages``, then commit.

        1. Read each record; of several with one id the last counts.
        2. Encode and upsert what exists, delete what does not.
        3. Dead-letter invalid records.
        4. Commit.
        """
        ahead: dict[int, int] = {}
        changes: dict[str, Change[Document]] = {}
        invalid: list[tuple[kafka.Record, str]] = []
        for message in messages:
            partition, offset = kafka.place(message)
            if message.error() is not None:
                ahead[partition] = offset
                continue
            ahead[partition] = offset + 1
            record = kafka.record(message)
            change = read_change(record.key, record.value)
            if change.error:
                invalid.append((record, change.error))
            if change.key is not None:
                changes[change.key] = change
        self._apply(changes, embedder)
        letters.send(invalid)
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

    def _commit(self, reader: Consumer, ahead: dict[int, int]) -> None:
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
        if self._stopping.is_set():
            raise StoppedError("the build is no longer followed")
