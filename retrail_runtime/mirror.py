"""A local SQLite copy of a topic that resumes where it stopped.

Offsets are stored in the transaction of the rows that were read up to them, so a crash loses
nothing and repeats nothing.
"""

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from retrail_runtime import kafka, metrics
from retrail_runtime.files import free_space
from schemas.base import Change
from schemas.errors import BrokerUnavailableError, RestartRequiredError, TopicMismatchError
from schemas.settings import Settings

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 5.0
"""Timeout of a request for end offsets: the process has other work to do."""

Rebuild = Literal[
    "corrupted", "topic recreated", "table changed", "topic truncated", "absent too long"
]
"""Why a local copy is removed and read again."""

MAX_ABSENCE_SECONDS = 6 * 24 * 3600.0
"""An older copy of a compacted topic may have missed deletions, which the topic keeps for
``delete.retention.ms`` (7 days)."""

KEYS_AT_ONCE = 500
"""SQLite takes 999 parameters everywhere."""

Row = tuple[Any, ...]

_BOOKKEEPING = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS position (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS repeats (
    partition INTEGER, offset INTEGER, PRIMARY KEY (partition, offset)
);
"""


@dataclass(frozen=True, slots=True)
class Table:
    """The table that holds a topic.

    Attributes:
        columns: SQL definitions; the first column is the key.
        indices: columns of each index.
        compacted: the last record of a key counts, as on a compacted topic. Otherwise the first
            one counts, and the places of the others are kept in ``repeats``.
        beside: statements that create a further table, which ``on_stored`` fills.
    """

    name: str
    columns: tuple[str, ...]
    indices: tuple[str, ...] = ()
    compacted: bool = True
    beside: str = ""

    @property
    def key(self) -> str:
        """Name of the key's column."""
        return self.columns[0].split()[0]

    def sql(self) -> str:
        """Statements that create the table if it does not exist."""
        first, *others = self.columns
        columns = ", ".join((f"{first} PRIMARY KEY", *others))
        indices = (
            f"CREATE INDEX IF NOT EXISTS {self.name}_{number} ON {self.name} ({index});"
            for number, index in enumerate(self.indices)
        )
        return "\n".join(
            (f"CREATE TABLE IF NOT EXISTS {self.name} ({columns});", *indices, self.beside)
        )


class TopicMirror(ABC):
    """Follows one topic into ``<folder>/<topic>.sqlite`` (WAL: readers never wait).

    One thread polls; any thread reads. A copy is rebuilt at the start if the topic was recreated or
    truncated, if the file is corrupted or has another table, or if a copy of a compacted topic is
    older than :data:`MAX_ABSENCE_SECONDS`.

    Attributes:
        next: by partition the offset of the next record to read.
        outdated: whether the topic was deleted, created again or truncated meanwhile; the next
            start rebuilds the copy.

    Raises:
        BrokerUnavailableError, TopicMismatchError: from Kafka, at the start.
    """

    table: ClassVar[Table]

    def __init__(self, settings: Settings, topic: str, folder: Path) -> None:
        self._settings = settings
        self.topic = topic
        self.path = folder / f"{topic}.sqlite"
        self._gone: KafkaError | None = None
        self.outdated = False
        self._consumer = kafka.consumer(
            settings,
            on_error=self._on_error,
            enable_partition_eof=True,
            topic_metadata_propagation_max_ms=5000,
        )
        # A second client: the first one blocks while it waits for records.
        self._offsets = kafka.consumer(settings)
        marks = kafka.offsets(self._offsets, topic)
        self._admin = kafka.admin(settings)
        self._topic_id = kafka.topic_id(self._admin, topic)
        with self._failures_named():
            self._db = self._open(self._topic_id, marks)
            stored = dict(self._db.execute("SELECT partition, next FROM position"))
        self.next: dict[int, int] = {
            partition: max(low, stored.get(partition, low)) for partition, (low, _) in marks.items()
        }
        self._assign()

    @abstractmethod
    def decode(self, record: kafka.Record) -> Change[Row]:
        """The change that a record makes to the row of its key: the columns after the key."""

    def on_stored(self, db: sqlite3.Connection, row: Row, *, repeated: bool) -> None:  # noqa: B027
        """Called for every value that was read, within the transaction that stores it."""

    def poll(self, timeout: float) -> int:
        """Store what has arrived, waiting ``timeout`` seconds at most; returns how many records.

        Raises:
            RestartRequiredError: the topic was deleted or truncated under the running process, or
                the file cannot be written.
        """
        try:
            messages = kafka.ready(self._settings, self._consumer, timeout)
            if self._gone is not None:
                self.outdated = True
                raise RestartRequiredError(
                    f"Topic {self.topic} is gone: {self._gone.str()}.", topic=self.topic
                )
            places = [kafka.place(message) for message in messages]
        except (BrokerUnavailableError, TopicMismatchError, KafkaException) as error:
            if isinstance(error, TopicMismatchError):
                self.outdated = True
            raise RestartRequiredError(f"Following {self.topic} failed: {error}") from error
        if not messages:
            return 0
        ahead = dict(self.next)
        records = [
            kafka.record(message)
            for message, (partition, offset) in zip(messages, places, strict=True)
            if message.error() is None and offset >= ahead[partition]
        ]
        for message, (partition, offset) in zip(messages, places, strict=True):
            ahead[partition] = max(ahead[partition], offset + (message.error() is None))
        with self._failures_named(), self._db as db:
            for record in records:
                self._store(db, record)
            db.executemany("REPLACE INTO position VALUES (?, ?)", ahead.items())
            self._note_time()
        self.next = ahead
        return len(records)

    def ends(self) -> dict[int, int]:
        """End offset of each partition now; updates the lag metric and follows new partitions.

        For the thread that polls.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
            RestartRequiredError: the topic was created again or truncated; the next start rebuilds
                the copy.
        """
        if kafka.topic_id(self._admin, self.topic, ANSWER_SECONDS) != self._topic_id:
            self.outdated = True
            raise RestartRequiredError(
                f"Topic {self.topic} was deleted and created again. Its local copy is rebuilt at "
                "the next start.",
                topic=self.topic,
            )
        marks = kafka.offsets(self._offsets, self.topic, timeout=ANSWER_SECONDS)
        added = {p: low for p, (low, _) in marks.items() if p not in self.next}
        if added:
            log.info("following new partitions", topic=self.topic, partitions=sorted(added))
            self.next = self.next | added
            self._assign()
        for partition, (_, high) in marks.items():
            if high < self.next[partition]:
                self.outdated = True
                raise RestartRequiredError(
                    f"{self.topic}/{partition} was truncated to {high}. Its local copy is rebuilt "
                    "at the next start.",
                    topic=self.topic,
                    partition=partition,
                )
            lag = high - self.next[partition]
            metrics.LAG_RECORDS.labels(topic=self.topic, partition=partition).set(lag)
        return {partition: high for partition, (_, high) in marks.items()}

    def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before ``ends`` is stored."""
        return all(self.next.get(partition, 0) >= end for partition, end in ends.items())

    def catch_up(self, progress: Callable[[str, int], object] = lambda topic, count: None) -> None:
        """Follow to the end offsets of now.

        Args:
            progress: called with the topic and how many records were read since the last call.

        Raises:
            BrokerUnavailableError: nothing arrived for :data:`kafka.STALL_SECONDS`.
        """
        ends, heard_at = self.ends(), time.monotonic()
        while not self.reached(ends):
            before = self.next
            progress(self.topic, self.poll(0.5))
            if self.next != before:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > kafka.STALL_SECONDS:
                raise BrokerUnavailableError(
                    f"Kafka sent nothing of {self.topic} for {kafka.STALL_SECONDS:.0f} s. Check "
                    "that the broker is up.",
                    topic=self.topic,
                )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection to the copy as of the first statement.

        Raises:
            RestartRequiredError: the file cannot be read.
        """
        with self._failures_named(), closing(_read_only(self.path)) as db:
            db.execute("BEGIN")
            yield db

    def close(self) -> None:
        """Stop following; what was read stays for the next start."""
        self._consumer.close()
        self._offsets.close()
        with self._failures_named(), self._db:
            self._note_time()
        self._db.close()

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(self.topic, p, at) for p, at in self.next.items()])

    def _store(self, db: sqlite3.Connection, record: kafka.Record) -> None:
        change, table = self.decode(record), self.table
        if change.error:
            metrics.INVALID_RECORDS.labels(stage=table.name).inc()
            log.warning(
                "invalid record",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                error=change.error,
            )
        if change.key is None:
            return
        if change.value is None:
            db.execute(f"DELETE FROM {table.name} WHERE {table.key} = ?", (change.key,))
            return
        conflict = "REPLACE" if table.compacted else "IGNORE"
        marks = ", ".join("?" * len(table.columns))
        stored = db.execute(
            f"INSERT OR {conflict} INTO {table.name} VALUES ({marks})", (change.key, *change.value)
        ).rowcount
        if not stored:
            place = record.partition, record.offset
            db.execute("INSERT OR IGNORE INTO repeats VALUES (?, ?)", place)
        self.on_stored(db, change.value, repeated=not stored)

    def _on_error(self, error: KafkaError) -> None:
        kafka.report(error)
        if error.code() in kafka.TOPIC_GONE:
            self._gone = error

    def _note_time(self) -> None:
        self._db.execute("REPLACE INTO state VALUES ('read_at', ?)", (str(time.time()),))

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Turn errors of SQLite into one with a remedy; a corrupted file is removed."""
        try:
            yield
        except (OSError, sqlite3.DatabaseError) as error:
            if _is_corruption(error):
                self._remove()
                remedy = "It is rebuilt at the next start."
            elif isinstance(error, OSError | sqlite3.OperationalError):
                remedy = f"Free disk space ({free_space(self.path)}) and check the permissions."
            else:
                raise
            raise RestartRequiredError(
                f"The local copy {self.path} failed: {error}. {remedy}", path=self.path
            ) from error

    def _open(self, topic_id: str, marks: Mapping[int, tuple[int, int]]) -> sqlite3.Connection:
        wanted = {"topic_id": topic_id, "table": self.table.sql()}
        metrics.at_zero(metrics.INVALID_RECORDS, [self.table.name])
        metrics.at_zero(metrics.MIRROR_REBUILDS, [self.topic], get_args(Rebuild))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path)
        reason = self._outdated(db, wanted, marks)
        if reason:
            log.warning("rebuilding local copy", topic=self.topic, reason=reason)
            metrics.MIRROR_REBUILDS.labels(topic=self.topic, reason=reason).inc()
            db.close()
            self._remove()
            db = sqlite3.connect(self.path)
        db.executescript(_BOOKKEEPING + wanted["table"])
        with db:
            db.executemany("REPLACE INTO state VALUES (?, ?)", wanted.items())
        return db

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _outdated(
        self,
        db: sqlite3.Connection,
        wanted: Mapping[str, str],
        marks: Mapping[int, tuple[int, int]],
    ) -> Rebuild | None:
        """Why an existing copy cannot be used; ``None`` if it can, or is new."""
        try:
            db.executescript(_BOOKKEEPING)
            state = dict(db.execute("SELECT name, value FROM state"))
            stored = dict(db.execute("SELECT partition, next FROM position"))
        except sqlite3.DatabaseError as error:
            if _is_corruption(error):
                return "corrupted"
            raise
        absent = time.time() - float(state.get("read_at", "inf"))
        if state.get("topic_id", wanted["topic_id"]) != wanted["topic_id"]:
            return "topic recreated"
        if state.get("table", wanted["table"]) != wanted["table"]:
            return "table changed"
        if any(at > marks.get(partition, (0, 0))[1] for partition, at in stored.items()):
            return "topic truncated"
        if self.table.compacted and absent > MAX_ABSENCE_SECONDS:
            return "absent too long"
        return None


def stored_topic_id(path: Path) -> str:
    """The id of the topic that a local copy holds; empty if the file is none, or is new."""
    with closing(_read_only(path)) as db:
        try:
            found = db.execute("SELECT value FROM state WHERE name = 'topic_id'").fetchone()
        except sqlite3.DatabaseError:
            return ""
        return str(found[0]) if found else ""


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _is_corruption(error: Exception) -> bool:
    """sqlite3 raises DatabaseError itself, not a subclass, for a malformed file."""
    return type(error) is sqlite3.DatabaseError


def rows_of(
    db: sqlite3.Connection, select: str, keys: Iterable[str | bytes]
) -> Iterator[tuple[Any, ...]]:
    """The rows whose key is one of ``keys``, each once.

    Args:
        select: a statement that ends with the column of the key.

    Example::

        rows_of(db, "SELECT doc_id, text FROM documents WHERE doc_id", ["a", "b"])
    """
    remaining = iter(dict.fromkeys(keys))
    while some := list(islice(remaining, KEYS_AT_ONCE)):
        marks = ",".join("?" * len(some))
        yield from db.execute(f"{select} IN ({marks})", some)
