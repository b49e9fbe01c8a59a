"""One build follows ``documents``: encode, upsert, then commit.

Offsets are committed once Milvus has acknowledged the rows, so a worker that is killed at any point
repeats at most one chunk, and rows are upserts, so a repeat changes nothing.
"""

import threading
from collections.abc import Callable, Mapping, Sequence

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
from schemas.errors import RestartRequiredError
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


class Ingest(threading.Thread):
    """A member of a build's consumer group.

    Attributes:
        owned: partitions that this member reads.
        error: what ended the thread, if not :meth:`stop` or the loss of the collection.
    """

    def __init__(
        self,
        settings: Settings,
        build: Build,
        group: str,
        embedder: Callable[[], Embedder],
        milvus: Milvus,
    ) -> None:
        super().__init__(name=f"ingest-{build.collection}", daemon=True)
        self.build = build
        self.owned: frozenset[int] = frozenset()
        self.error: BaseException | None = None
        self._settings = settings
        self._topic = Topics.of(settings).documents
        self._group = group
        self._embedder = embedder
        self._milvus = milvus
        self._stopping = threading.Event()
        self._positions: dict[int, int] = {}
        self._version = str(build.version)

    def stop(self) -> None:
        """End soon, between two batches of the encoder; ``join`` waits for it."""
        self._stopping.set()

    def run(self) -> None:
        """Follow until stopped, or until the collection is lost."""
        reader = kafka.consumer(
            self._settings, self._group, enable_partition_eof=True, heartbeat_interval_ms=500
        )
        letters = DeadLetters(self._settings)
        try:
            embedder = self._embedder()
            reader.subscribe(
                [self._topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while not self._stopping.is_set():
                messages = kafka.ready(reader, POLL_SECONDS, CHUNK)
                if messages:
                    self._process(reader, messages, embedder, letters)
        except StoppedError:
            pass
        except CollectionLostError:
            log.warning("collection lost", collection=self.build.collection)
        except Exception as error:
            self.error = error
        finally:
            self.owned = frozenset()
            letters.close()
            reader.close()

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
        documents = [change.value for change in changes.values() if change.value is not None]
        if documents:
            rows = embedder.rows(documents, self._unless_stopped)
            upserted = self._milvus.upsert(self.build, rows)
            metrics.ROWS_UPSERTED.labels(self._version).inc(upserted)
        gone = [doc_id for doc_id, change in changes.items() if change.value is None]
        if gone:
            deleted = self._milvus.delete(self.build, gone)
            metrics.ROWS_DELETED.labels(self._version).inc(deleted)

    def _commit(self, reader: Consumer, ahead: dict[int, int]) -> None:
        moved = {p: offset for p, offset in ahead.items() if self._positions.get(p) != offset}
        if not moved:
            return
        try:
            reader.commit(
                offsets=[TopicPartition(self._topic, p, offset) for p, offset in moved.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            if error.args[0].code() not in _REASSIGNED:
                raise RestartRequiredError(
                    f"Kafka did not commit the offsets of {self._group}: {error}",
                    topic=self._topic,
                ) from error
            log.info("partitions reassigned before the commit", collection=self.build.collection)
            return
        self._positions |= moved
        for partition in moved:
            self._set_lag(reader, partition)

    def _set_lag(self, reader: Consumer, partition: int) -> None:
        marks = reader.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        if marks is not None and marks[1] >= 0:
            lag = max(0, marks[1] - self._positions[partition])
            metrics.LAG.labels(self.build.collection, str(partition)).set(lag)

    def _on_assign(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self.owned |= {p.partition for p in partitions}
        log.info(
            "partitions assigned", collection=self.build.collection, partitions=len(self.owned)
        )

    def _on_revoke(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        lost = {p.partition for p in partitions}
        self.owned -= lost
        for partition in lost:
            self._positions.pop(partition, None)
            metrics.LAG.remove(self.build.collection, str(partition))

    def _unless_stopped(self, _done: int, _total: int) -> None:
        if self._stopping.is_set():
            raise StoppedError("the build is no longer followed")
