"""Local mirrors of the topics that a run reads: pairs, documents and outcomes."""

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import orjson

from consumers.training import metrics
from retrail_runtime.erasures import ErasureLog
from retrail_runtime.kafka import Record
from retrail_runtime.metrics import ERASED
from retrail_runtime.mirror import Row, Table, TopicMirror, rows_of
from schemas import documents, events, pairs
from schemas.base import Change
from schemas.documents import Document
from schemas.erasures import Erasures
from schemas.errors import InvalidRecordError
from schemas.events import Outcome
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.draws import draw_of, is_held_out, normalize_query
from trainer.data.lineage import holds, merged

_TRAINS = "relevant = 1 AND held_out = 0"
_OWNERS = "SELECT DISTINCT owner FROM documents WHERE owner > ''"

MOST_JUDGEMENTS = 20_000
"""Pairs of held-out queries that are read for one comparison; of more, a sample by hash."""


class Ends(NamedTuple):
    """End offsets by partition, of each topic."""

    pairs: Mapping[int, int]
    documents: Mapping[int, int]
    outcomes: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Pending:
    """Number of relevant pairs since some offsets that are not held out.

    ``oldest``: append time of the oldest, in milliseconds since the epoch; ``None`` without any.
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
            "draw INTEGER NOT NULL",
            "value BLOB NOT NULL",
        ),
        indices=(
            "partition, offset, relevant, held_out, timestamp, draw",
            "relevant, held_out, draw, partition, offset",
        ),
        compacted=False,
        beside="""
            CREATE TABLE IF NOT EXISTS asked (
                query INTEGER, held_out INTEGER, partition INTEGER, offset INTEGER,
                PRIMARY KEY (query, held_out, partition, offset)
            ) WITHOUT ROWID;
        """,
    )
    erasures: Erasures = Erasures()
    _counted: tuple[object, object, Pending] | None = None

    def decode(self, record: Record) -> Change[Row]:
        """The row of a pair."""
        try:
            pair = pairs.decode(record.value)
        except InvalidRecordError as error:
            return Change(None, None, str(error))
        if self._erased(pair, record.partition, record.offset):
            return Change(pair.pair_id, None)
        place = record.partition, record.offset, record.timestamp
        relevant, held_out = pair.verdict == "relevant", is_held_out(pair.query)
        row = *place, relevant, held_out, draw_of(pair.pair_id), record.value
        return Change(pair.pair_id, row)

    def _erased(self, pair: LabelledPair, partition: int, offset: int) -> bool:
        found = self.erasures.of_pair(pair, self.topic, (partition, offset), partition)
        if found is not None:
            ERASED.labels("train").inc()
        return found is not None

    def forget(self, erasures: Erasures) -> None:
        """Use these erasures from now on, and delete the pairs that they cover, also on disk."""
        if len(erasures) == len(self.erasures):
            return
        self.erasures = erasures
        with self._failures_named():
            with self._db as db:
                covered = [
                    (pair_id,)
                    for pair_id, partition, offset, value in db.execute(
                        "SELECT pair_id, partition, offset, value FROM pairs"
                    )
                    if self._erased(pairs.decode(value), partition, offset)
                ]
                db.executemany("DELETE FROM pairs WHERE pair_id = ?", covered)
                if covered:
                    db.execute(
                        "DELETE FROM asked WHERE (partition, offset) NOT IN "
                        "(SELECT partition, offset FROM pairs)"
                    )
            self._counted = None
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def on_stored(self, db: sqlite3.Connection, row: Row, *, repeated: bool) -> None:
        """Count the pair, and note its queries if it is relevant."""
        partition, offset, _, relevant, held_out, _, value = row
        if repeated:
            metrics.PAIRS_REPEATED.inc()
            return
        metrics.PAIRS_READ.labels(verdict="relevant" if relevant else "irrelevant").inc()
        if relevant:
            pair = orjson.loads(value)
            db.executemany(
                "INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?)",
                [
                    (draw_of(normalize_query(query)), held_out, partition, offset)
                    for query in (pair["query"], *pair.get("earlier_queries", ()))
                    if held_out or not is_held_out(query)
                ],
            )

    def pending(self, since: Mapping[int, int]) -> Pending:
        """Trainable pairs from the offset in ``since`` on, for each partition (0 by default)."""
        if self._counted is not None and self._counted[:2] == (self.next, since):
            return self._counted[2]
        as_of, count, oldest = self.next, 0, None
        with self.reading() as db:
            for partition in as_of:
                some, first = db.execute(
                    "SELECT count(*), min(timestamp) FROM pairs "
                    f"WHERE partition = ? AND offset >= ? AND {_TRAINS}",
                    (partition, since.get(partition, 0)),
                ).fetchone()
                count += some
                oldest = min((t for t in (oldest, first) if t is not None), default=None)
        self._counted = as_of, dict(since), Pending(count, oldest)
        return self._counted[2]

    def newest(self, ranges: Iterable[Range]) -> int:
        """Append time of the newest pair in ``ranges`` that could train, in ms; 0 without one."""
        last = f"{_TRAINS} ORDER BY offset DESC LIMIT 1"
        rows = self._rows("SELECT timestamp FROM pairs", ranges, last)
        return max((timestamp for (timestamp,) in rows), default=0)

    def within(self, ranges: Iterable[Range]) -> Iterator[LabelledPair]:
        """The pairs in ``ranges`` of this topic, in order of partition and offset."""
        for (value,) in self._rows("SELECT value FROM pairs", ranges, "1 ORDER BY offset"):
            yield pairs.decode(value)

    def held_out(
        self, ranges: Iterable[Range], most: int = MOST_JUDGEMENTS
    ) -> Iterator[LabelledPair]:
        """The relevant pairs of held-out queries in ``ranges``; the first ``most`` by draw."""
        places = self._rows(
            "SELECT draw, rowid FROM pairs", ranges, "relevant = 1 AND held_out = 1"
        )
        return self._values(rowid for _, rowid in heapq.nsmallest(most, places))

    def in_turn(
        self, ranges: Iterable[Range], start: int = 0, *, held_out: bool = False
    ) -> Iterator[LabelledPair]:
        """The trainable pairs in ``ranges``, or the held-out ones, by draw from ``start`` on.

        Reads no more than what is taken, and the places of pairs in other ranges.
        """
        spans = merged(ranges, self.topic)

        def places() -> Iterator[int]:
            with self.reading() as db:
                for side in (">=", "<") if spans else ():
                    for rowid, partition, offset in db.execute(
                        "SELECT rowid, partition, offset FROM pairs "
                        f"WHERE relevant = 1 AND held_out = ? AND draw {side} ? ORDER BY draw",
                        (held_out, start),
                    ):
                        if holds(spans, partition, offset):
                            yield rowid

        return self._values(places())

    def asking(
        self, queries: Iterable[str], ranges: Iterable[Range], *, held_out: bool = False
    ) -> Iterator[LabelledPair]:
        """One relevant pair in ``ranges`` for each of the queries that it asked, if there is one.

        Args:
            held_out: find held-out pairs; otherwise trainable ones, by the queries that may train.
        """
        spans = merged(ranges, self.topic)
        select = "SELECT partition, offset FROM asked WHERE query = ? AND held_out = ?"
        with self.reading() as db:
            for query in dict.fromkeys(map(normalize_query, queries)):
                places = db.execute(select, (draw_of(query), held_out))
                place = next((one for one in places if holds(spans, *one)), None)
                if place is not None:
                    (value,) = db.execute(
                        "SELECT value FROM pairs WHERE partition = ? AND offset = ?", place
                    ).fetchone()
                    yield pairs.decode(value)

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
            for partition, spans in merged(ranges, self.topic).items():
                for start, end in spans:
                    yield from db.execute(
                        f"{select} WHERE partition = ? AND offset >= ? AND offset < ? AND {where}",
                        (partition, start, end),
                    )

    def _values(self, rowids: Iterable[int]) -> Iterator[LabelledPair]:
        with self.reading() as db:
            for rowid in rowids:
                for (value,) in db.execute("SELECT value FROM pairs WHERE rowid = ?", (rowid,)):
                    yield pairs.decode(value)


class DocumentMirror(TopicMirror):
    """All existing documents by id."""

    table: ClassVar[Table] = Table(
        "documents",
        (
            *("doc_id TEXT", "draw INTEGER NOT NULL"),
            *("title TEXT NOT NULL", "text TEXT NOT NULL", "owner TEXT NOT NULL"),
        ),
        indices=("draw, doc_id", "owner"),
    )

    def decode(self, record: Record) -> Change[Row]:
        """The row of a document."""
        change = documents.read_change(record.key, record.value)
        found = change.value
        row = (draw_of(found.doc_id), found.title, found.text, found.owner) if found else None
        return Change(change.key, row, change.error)

    def get(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        """The documents with these ids; unknown and deleted ones are skipped."""
        select = "SELECT doc_id, title, text, owner FROM documents WHERE doc_id"
        with self.reading() as db:
            return {
                doc_id: Document(doc_id=doc_id, title=title, text=text, tenant=owner or None)
                for doc_id, title, text, owner in rows_of(db, select, doc_ids)
            }

    def known(self, doc_ids: Iterable[str]) -> dict[str, str]:
        """The owners of the documents with these ids that exist."""
        select = "SELECT doc_id, owner FROM documents WHERE doc_id"
        with self.reading() as db:
            return dict(rows_of(db, select, doc_ids))

    def owners(self) -> set[str]:
        """The tenants that have documents of their own."""
        with self.reading() as db:
            return {owner for (owner,) in db.execute(_OWNERS)}

    def sample(self, count: int, seed: int) -> list[str]:
        """Ids drawn uniformly without their texts, up to ``count``; by hash, so that equal
        documents and seeds give equal samples."""
        select = "SELECT doc_id FROM documents WHERE draw {} ? ORDER BY draw, doc_id LIMIT ?"
        start, found = draw_of(str(seed)), list[str]()
        with self.reading() as db:
            for side in (">=", "<"):
                rows = db.execute(select.format(side), (start, count - len(found)))
                found += [doc_id for (doc_id,) in rows]
        return found


class KnownOutcomes:
    """A snapshot of reported outcomes, for use in one thread.

    ``ranges``: the records of ``outcomes`` in the snapshot, for each partition with any.
    """

    def __init__(self, db: sqlite3.Connection, topic: str) -> None:
        self._db = db
        self.ranges = tuple(
            Range(topic=topic, partition=partition, start=0, end=end)
            for partition, end in db.execute(
                "SELECT partition, next FROM position WHERE next > 0 ORDER BY partition"
            )
        )

    def of(self, pair: LabelledPair) -> Outcome:
        """That of the last report about a pair's trajectory, or without one the pair's."""
        found: tuple[Outcome] | None = self._db.execute(
            "SELECT outcome FROM outcomes WHERE trajectory_id = ?", (pair.trajectory_id,)
        ).fetchone()
        return found[0] if found else pair.outcome


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
    """The mirrors of a trainer. One thread updates them; any thread can read.

    Attributes:
        folder: used by this process only.
        erasures: what the pairs were read without, or will be after the next poll.
    """

    def __init__(self, settings: Settings, folder: Path, pair_topic: str | None = None) -> None:
        """Open the mirrors, or create them.

        Args:
            folder: see above.
            pair_topic: by default that of the settings' revision.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        topics = Topics.of(settings)
        self.folder = folder
        self.pairs = PairMirror(settings, pair_topic or topics.labelled_pairs, folder)
        self.documents = DocumentMirror(settings, topics.documents, folder)
        self.outcomes = OutcomeMirror(settings, topics.outcomes, folder)
        self._all: tuple[TopicMirror, ...] = (self.pairs, self.documents, self.outcomes)
        self.erasures = ErasureLog(settings)
        self.pairs.forget(self.erasures.refresh())

    def poll(self, timeout: float) -> None:
        """Store new records, waiting up to ``timeout`` seconds for pairs.

        Raises:
            RestartRequiredError: see :meth:`TopicMirror.poll`.
        """
        self.pairs.forget(self.erasures.current())
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
