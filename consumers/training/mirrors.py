"""Local mirrors of the topics that a run reads: pairs, documents and outcomes."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from consumers.training import metrics
from retrail_runtime.kafka import Record
from retrail_runtime.mirror import Row, Table, TopicMirror, rows_of
from schemas import documents, events, pairs
from schemas.base import Change
from schemas.documents import Document
from schemas.errors import InvalidRecordError
from schemas.events import ReportedOutcome
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.draws import is_held_out

_TRAINS = "relevant AND NOT held_out"


class Ends(NamedTuple):
    """End offsets by partition, of each topic."""

    pairs: Mapping[int, int]
    documents: Mapping[int, int]
    outcomes: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Pending:
    """Trainable pairs since some offsets.

    Attributes:
        count: number of relevant pairs that are not held out.
        oldest: append time of the oldest, in milliseconds since the epoch; ``None`` without any.
    """

    count: int = 0
    oldest: int | None = None


class PairMirror(TopicMirror):
    """All pairs by id; the first of each id."""

    table: ClassVar[Table] = Table(
        "pairs",
        (
            "pair_id TEXT",
            "partition INTEGER NOT NULL",
            "offset INTEGER NOT NULL",
            "timestamp INTEGER NOT NULL",
            "relevant INTEGER NOT NULL",
            "held_out INTEGER NOT NULL",
            "value BLOB NOT NULL",
        ),
        indices=("partition, offset, relevant, held_out, timestamp",),
        compacted=False,
    )

    def decode(self, record: Record) -> Change[Row]:
        """The row of a pair."""
        try:
            pair = pairs.decode(record.value)
        except InvalidRecordError as error:
            return Change(None, None, str(error))
        place = record.partition, record.offset, record.timestamp
        row = *place, pair.verdict == "relevant", is_held_out(pair.query), record.value
        return Change(pair.pair_id, row)

    def on_stored(self, row: Row, *, repeated: bool) -> None:
        """Count the pair."""
        if repeated:
            metrics.PAIRS_REPEATED.inc()
        else:
            metrics.PAIRS_READ.labels(verdict="relevant" if row[3] else "irrelevant").inc()

    def pending(self, since: Mapping[int, int]) -> Pending:
        """Trainable pairs from the offset in ``since`` on, for each partition (0 by default)."""
        count, oldest = 0, None
        with self.reading() as db:
            for partition in self.next:
                some, first = db.execute(
                    "SELECT count(*), min(timestamp) FROM pairs "
                    f"WHERE partition = ? AND offset >= ? AND {_TRAINS}",
                    (partition, since.get(partition, 0)),
                ).fetchone()
                count += some
                oldest = min((t for t in (oldest, first) if t is not None), default=None)
        return Pending(count, oldest)

    def newest(self, ranges: Iterable[Range]) -> int:
        """Append time of the newest pair in ``ranges`` that could train, in ms; 0 without one."""
        rows = self._rows("SELECT max(timestamp) FROM pairs", ranges, _TRAINS)
        return max((timestamp or 0 for (timestamp,) in rows), default=0)

    def within(self, ranges: Iterable[Range], where: str = "1") -> Iterator[LabelledPair]:
        """The pairs in ``ranges`` of this topic, in order of partition and offset."""
        for (value,) in self._rows("SELECT value FROM pairs", ranges, f"{where} ORDER BY offset"):
            yield pairs.decode(value)

    def held_out(self, ranges: Iterable[Range]) -> Iterator[LabelledPair]:
        """The relevant pairs of held-out queries in ``ranges``."""
        return self.within(ranges, "relevant AND held_out")

    def trainable(self, ranges: Iterable[Range]) -> Iterator[LabelledPair]:
        """The trainable pairs in ``ranges``."""
        return self.within(ranges, _TRAINS)

    def trainable_ids(self, ranges: Iterable[Range]) -> list[str]:
        """Ids of the trainable pairs in ``ranges``."""
        rows = self._rows("SELECT pair_id FROM pairs", ranges, _TRAINS)
        return [pair_id for (pair_id,) in rows]

    def get(self, pair_ids: Sequence[str]) -> list[LabelledPair]:
        """The pairs with these ids, in any order; unknown ids are skipped."""
        select = "SELECT value FROM pairs WHERE pair_id"
        with self.reading() as db:
            return [pairs.decode(value) for (value,) in rows_of(db, select, pair_ids)]

    def repeats(self, ranges: Iterable[Range]) -> int:
        """Number of records in ``ranges`` that repeat an earlier pair."""
        return sum(count for (count,) in self._rows("SELECT count(*) FROM repeats", ranges))

    def _rows(self, select: str, ranges: Iterable[Range], where: str = "1") -> Iterator[Row]:
        with self.reading() as db:
            for span in ranges:
                if span.topic == self.topic:
                    yield from db.execute(
                        f"{select} WHERE partition = ? AND offset >= ? AND offset < ? AND {where}",
                        (span.partition, span.start, span.end),
                    )


class DocumentMirror(TopicMirror):
    """All existing documents by id."""

    table: ClassVar[Table] = Table(
        "documents", ("doc_id TEXT", "title TEXT NOT NULL", "text TEXT NOT NULL")
    )

    def decode(self, record: Record) -> Change[Row]:
        """The row of a document."""
        change = documents.read_change(record.key, record.value)
        row = (change.value.title, change.value.text) if change.value else None
        return Change(change.key, row, change.error)

    def get(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        """The documents with these ids; unknown and deleted ones are skipped."""
        select = "SELECT doc_id, title, text FROM documents WHERE doc_id"
        with self.reading() as db:
            return {
                doc_id: Document(doc_id=doc_id, title=title, text=text)
                for doc_id, title, text in rows_of(db, select, doc_ids)
            }

    def known(self, doc_ids: Iterable[str]) -> set[str]:
        """The ids in ``doc_ids`` whose documents exist."""
        select = "SELECT doc_id FROM documents WHERE doc_id"
        with self.reading() as db:
            return {doc_id for (doc_id,) in rows_of(db, select, doc_ids)}

    def all_ids(self) -> list[str]:
        """All ids, sorted."""
        with self.reading() as db:
            return [row[0] for row in db.execute("SELECT doc_id FROM documents ORDER BY doc_id")]


class KnownOutcomes:
    """A snapshot of reported outcomes, for use in one thread.

    Attributes:
        ranges: the records of ``outcomes`` in the snapshot, for each partition with any.
    """

    def __init__(self, db: sqlite3.Connection, topic: str) -> None:
        self._db = db
        self.ranges = tuple(
            Range(topic=topic, partition=partition, start=0, end=end)
            for partition, end in db.execute(
                "SELECT partition, next FROM position WHERE next > 0 ORDER BY partition"
            )
        )

    def get(self, trajectory_id: str) -> ReportedOutcome | None:
        """The last report about a trajectory; ``None`` without one."""
        found: tuple[ReportedOutcome] | None = self._db.execute(
            "SELECT outcome FROM outcomes WHERE trajectory_id = ?", (trajectory_id,)
        ).fetchone()
        return found[0] if found else None


class OutcomeMirror(TopicMirror):
    """The last report about every trajectory."""

    table: ClassVar[Table] = Table("outcomes", ("trajectory_id TEXT", "outcome TEXT NOT NULL"))

    def decode(self, record: Record) -> Change[Row]:
        """The row of a report."""
        change = events.read_outcome(record.key, record.value)
        return Change(change.key, (change.value.outcome,) if change.value else None, change.error)

    @contextmanager
    def snapshot(self) -> Iterator[KnownOutcomes]:
        """The outcomes known now; the mirror can be updated meanwhile."""
        with self.reading() as db:
            yield KnownOutcomes(db, self.topic)


class Mirrors:
    """The mirrors of a trainer. One thread updates them; any thread can read."""

    def __init__(self, settings: Settings, folder: Path, pair_topic: str | None = None) -> None:
        """Open the mirrors, or create them.

        Args:
            folder: used by this process only.
            pair_topic: by default that of the settings' revision.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        topics = Topics.of(settings)
        self.pairs = PairMirror(settings, pair_topic or topics.labelled_pairs, folder)
        self.documents = DocumentMirror(settings, topics.documents, folder)
        self.outcomes = OutcomeMirror(settings, topics.outcomes, folder)
        self._all: tuple[TopicMirror, ...] = (self.pairs, self.documents, self.outcomes)

    def poll(self, timeout: float) -> None:
        """Store new records, waiting up to ``timeout`` seconds for pairs.

        Raises:
            RestartRequiredError: see :meth:`TopicMirror.poll`.
        """
        for mirror in self._all:
            mirror.poll(timeout if mirror is self.pairs else 0)

    def ends(self) -> Ends:
        """The current ends of the topics; updates the lag metrics.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        return Ends(*(mirror.ends() for mirror in self._all))

    def reached(self, ends: Ends) -> bool:
        """Whether all records before ``ends`` are stored."""
        return all(mirror.reached(wanted) for mirror, wanted in zip(self._all, ends, strict=True))

    def catch_up(self, progress: Callable[[str, int], object]) -> None:
        """Read up to the current ends; see :meth:`TopicMirror.catch_up`."""
        for mirror in self._all:
            mirror.catch_up(progress)

    def close(self) -> None:
        """Stop updating; the stored records stay for the next start."""
        for mirror in self._all:
            mirror.close()
