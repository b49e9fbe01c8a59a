"""A local SQLite copy of what a topic says, resumed where it stopped.

Offsets are stored in the transaction of what was read up to them, so a crash loses nothing and
repeats nothing.
"""

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition

from consumers import metrics
from retrail_runtime import kafka
from retrail_runtime.metrics import LAG_RECORDS
from schemas.errors import BrokerUnavailableError, RestartRequiredError
from schemas.settings import Settings

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 5.0
"""How long a running process waits to be told the ends of a topic: it has other things to do."""

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS position (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


_GONE = (
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class Follower(ABC):
    """Follows one topic into ``<folder>/<topic>.sqlite`` (WAL: readers never wait).

    One thread polls; any thread reads. The copy is thrown away and read anew when the topic was
    recreated or ends before the copy does, and when the copy missed more than
    :attr:`max_absence_seconds`.

    Raises:
        BrokerUnavailableError, TopicMismatchError: from Kafka, at the start.
    """

    tables: ClassVar[str]
    """What a subclass keeps: SQL that may run on every start."""

    max_absence_seconds: ClassVar[float | None] = None
    """How long the topic still tells of a deletion; a copy older than that may miss some."""

    def __init__(self, settings: Settings, topic: str, folder: Path) -> None:
        self.topic = topic
        self.path = folder / f"{topic}.sqlite"
        self._gone: KafkaError | None = None
        self._consumer = kafka.consumer(
            settings,
            on_error=self._on_error,
            auto_offset_reset="error",
            enable_partition_eof=True,
            topic_metadata_propagation_max_ms=5000,
        )
        # The other's connection is busy waiting for records, half a second at a time.
        self._asker = kafka.consumer(settings)
        marks = kafka.offsets(self._asker, topic)
        self._db = self._open(topic_id(settings, topic), marks)
        self.next = {
            partition: max(low, self._stored().get(partition, low))
            for partition, (low, _) in marks.items()
        }
        self._consumer.assign([TopicPartition(topic, p, at) for p, at in self.next.items()])

    @abstractmethod
    def apply(self, db: sqlite3.Connection, records: Sequence[kafka.Record]) -> None:
        """Write what ``records`` say, within the transaction that moves the offsets."""

    def poll(self, timeout: float) -> int:
        """Take in what has arrived, waiting ``timeout`` seconds at most; returns how many records.

        Raises:
            RestartRequiredError: the topic was deleted or truncated under the running process.
        """
        try:
            messages = kafka.ready(self._consumer, timeout)
            if self._gone is not None:
                raise RestartRequiredError(f"{self.topic} is gone: {self._gone.str()}")
            if not messages:
                return 0
            places = [kafka.place(message) for message in messages]
        except (BrokerUnavailableError, KafkaException) as error:
            raise RestartRequiredError(f"Following {self.topic} failed: {error}") from error
        records = [kafka.record(message) for message in messages if message.error() is None]
        ahead = dict(self.next)
        for message, (partition, offset) in zip(messages, places, strict=True):
            ahead[partition] = max(ahead[partition], offset + (message.error() is None))
        with self._db:
            self.apply(self._db, records)
            self._db.executemany("REPLACE INTO position VALUES (?, ?)", ahead.items())
            self._seen()
        self.next = ahead
        return len(records)

    def ends(self) -> dict[int, int]:
        """End offset of each partition now; the lag up to there is shown as a metric.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        marks = kafka.offsets(self._asker, self.topic, timeout=ANSWER_SECONDS)
        ends = {partition: high for partition, (_, high) in marks.items()}
        for partition, end in ends.items():
            lag = max(0, end - self.next[partition])
            LAG_RECORDS.labels(topic=self.topic, partition=partition).set(lag)
        return ends

    def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before ``ends`` has been taken in."""
        return all(self.next[partition] >= end for partition, end in ends.items())

    def catch_up(self, timeout: float) -> None:
        """Follow to the end offsets of now.

        Raises:
            BrokerUnavailableError: the end was not reached within ``timeout`` seconds.
        """
        deadline, ends = time.monotonic() + timeout, self.ends()
        while not self.reached(ends):
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"Could not read {self.topic} to its end within {timeout:.0f} s."
                )
            self.poll(0.5)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection that sees one moment of the copy."""
        db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            db.execute("BEGIN")
            yield db
        finally:
            db.close()

    def close(self) -> None:
        """Stop following; what was read stays for the next start."""
        self._consumer.close()
        self._asker.close()
        with self._db:
            self._seen()
        self._db.close()

    def _on_error(self, error: KafkaError) -> None:
        kafka.report(error)
        if error.code() in _GONE:
            self._gone = error

    def _seen(self) -> None:
        self._db.execute("REPLACE INTO state VALUES ('seen_at', ?)", (str(time.time()),))

    def _open(
        self, topic_id: str | None, marks: Mapping[int, tuple[int, int]]
    ) -> sqlite3.Connection:
        db = self._connect()
        reason = self._outdated(db, topic_id, marks)
        if reason:
            log.warning("local copy is read anew", topic=self.topic, reason=reason)
            metrics.STORE_REBUILDS.labels(topic=self.topic, reason=reason).inc()
            db.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            db = self._connect()
        with db:
            db.execute("REPLACE INTO state VALUES ('topic_id', ?)", (topic_id or "",))
        return db

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_BOOKKEEPING + self.tables)
        return db

    def _outdated(
        self, db: sqlite3.Connection, topic_id: str | None, marks: Mapping[int, tuple[int, int]]
    ) -> str | None:
        """Why a copy from an earlier start cannot be used; ``None`` if it can, or is new."""
        state = dict(db.execute("SELECT name, value FROM state"))
        stored = dict(db.execute("SELECT partition, next FROM position"))
        if state.get("topic_id", "") and topic_id and state["topic_id"] != topic_id:
            return "topic recreated"
        if any(at > marks.get(partition, (0, 0))[1] for partition, at in stored.items()):
            return "topic truncated"
        absent = time.time() - float(state["seen_at"]) if "seen_at" in state else 0.0
        if self.max_absence_seconds is not None and absent > self.max_absence_seconds:
            return "absent too long"
        return None

    def _stored(self) -> dict[int, int]:
        return dict(self._db.execute("SELECT partition, next FROM position"))


def topic_id(settings: Settings, topic: str) -> str | None:
    """The id that a topic gets at its creation; ``None`` from a broker that gives none."""
    admin = kafka.admin(settings)
    try:
        answer = admin.describe_topics(TopicCollection([topic]), request_timeout=10.0)
        return str(answer[topic].result().topic_id)
    except KafkaException as error:
        log.debug("the broker tells no topic ids", topic=topic, error=str(error))
        return None
