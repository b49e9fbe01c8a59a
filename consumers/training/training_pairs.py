"""The labelled pairs that the trainer has seen, from a local copy of ``labelled-pairs``."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import structlog

from consumers import metrics
from consumers.releases import complaint
from retrail_runtime.following import Follower
from retrail_runtime.kafka import Record
from retrail_runtime.sqlite_keys import rows_of
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings, TrainVariant
from schemas.topics import Topics
from trainer.data.heldout import is_held_out

log = structlog.get_logger(__name__)

CHUNK = 500
"""Pairs in memory at once, where there may be many."""

_TRAINS: dict[TrainVariant, str] = {
    "naive": "NOT held_out",
    "filter": "relevant AND NOT held_out",
    "reweight": "relevant AND NOT held_out",
}


@dataclass(frozen=True, slots=True)
class Pending:
    """Pairs that could train since some offsets.

    Attributes:
        count: relevant ones that are not held out.
        oldest: append time of the oldest, in milliseconds since the epoch; ``None`` without any.
    """

    count: int = 0
    oldest: int | None = None


class PairStore(Follower):
    """Every pair by id, of several with one id the first; reading is safe from any thread."""

    tables: ClassVar[str] = """
    CREATE TABLE IF NOT EXISTS pairs (
        pair_id TEXT PRIMARY KEY,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        timestamp INTEGER NOT NULL,
        relevant INTEGER NOT NULL,
        held_out INTEGER NOT NULL,
        value BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS pairs_by_place
        ON pairs (partition, offset, relevant, held_out, timestamp);
    CREATE TABLE IF NOT EXISTS repeats (
        partition INTEGER, offset INTEGER, PRIMARY KEY (partition, offset)
    );
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, Topics.of(settings).labelled_pairs, folder)

    def apply(self, db: sqlite3.Connection, records: Sequence[Record]) -> None:
        """Keep new pairs, note repeated ones, count malformed ones and pass them over."""
        for record in records:
            try:
                pair = LabelledPair.model_validate_json(record.value or b"")
            except ValueError as error:
                metrics.INVALID_RECORDS.labels(stage="pairs").inc()
                log.warning(
                    "malformed pair passed over",
                    partition=record.partition,
                    offset=record.offset,
                    error=complaint(error),
                )
                continue
            added = db.execute(
                "INSERT OR IGNORE INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    pair.pair_id,
                    record.partition,
                    record.offset,
                    record.timestamp,
                    pair.verdict == "relevant",
                    is_held_out(pair.query),
                    record.value,
                ),
            ).rowcount
            if added:
                metrics.PAIRS_SEEN.labels(verdict=pair.verdict).inc()
            else:
                metrics.PAIRS_REPEATED.inc()
                db.execute(
                    "INSERT OR IGNORE INTO repeats VALUES (?, ?)",
                    (record.partition, record.offset),
                )

    def pending(self, since: Mapping[int, int]) -> Pending:
        """Pairs that could train, from the offset ``since`` of each partition on (0 by default)."""
        count, oldest = 0, None
        with self.reading() as db:
            for partition in self.next:
                some, first = db.execute(
                    "SELECT count(*), min(timestamp) FROM pairs "
                    f"WHERE partition = ? AND offset >= ? AND {_TRAINS['reweight']}",
                    (partition, since.get(partition, 0)),
                ).fetchone()
                count += some
                oldest = min((t for t in (oldest, first) if t is not None), default=None)
        return Pending(count, oldest)

    def within(self, ranges: Iterable[Range], where: str = "1") -> Iterator[LabelledPair]:
        """The pairs in ``ranges`` of this topic, in order of partition and offset."""
        with self.reading() as db:
            for wanted in self._own(ranges):
                for (value,) in db.execute(
                    "SELECT value FROM pairs WHERE partition = ? AND offset >= ? AND offset < ? "
                    f"AND {where} ORDER BY offset",
                    (wanted.partition, wanted.start, wanted.end),
                ):
                    yield LabelledPair.model_validate_json(value)

    def held_out(self, ranges: Iterable[Range]) -> Iterator[LabelledPair]:
        """The relevant pairs of held-out queries in ``ranges``."""
        return self.within(ranges, "relevant AND held_out")

    def trainable(
        self, ranges: Iterable[Range], variant: TrainVariant = "reweight"
    ) -> Iterator[LabelledPair]:
        """The pairs in ``ranges`` that could train."""
        return self.within(ranges, _TRAINS[variant])

    def trainable_ids(
        self, ranges: Iterable[Range], variant: TrainVariant = "reweight"
    ) -> list[str]:
        """Ids of the pairs in ``ranges`` that could train."""
        ids: list[str] = []
        with self.reading() as db:
            for wanted in self._own(ranges):
                ids += (
                    row[0]
                    for row in db.execute(
                        "SELECT pair_id FROM pairs WHERE partition = ? AND offset >= ? "
                        f"AND offset < ? AND {_TRAINS[variant]}",
                        (wanted.partition, wanted.start, wanted.end),
                    )
                )
        return ids

    def get(self, pair_ids: Sequence[str]) -> list[LabelledPair]:
        """The pairs with these ids, in any order, without those that were never seen."""
        select = "SELECT value FROM pairs WHERE pair_id"
        with self.reading() as db:
            return [
                LabelledPair.model_validate_json(value)
                for (value,) in rows_of(db, select, pair_ids)
            ]

    def repeats(self, ranges: Iterable[Range]) -> int:
        """How many records in ``ranges`` repeat a pair that lies before them."""
        with self.reading() as db:
            return sum(
                db.execute(
                    "SELECT count(*) FROM repeats "
                    "WHERE partition = ? AND offset >= ? AND offset < ?",
                    (wanted.partition, wanted.start, wanted.end),
                ).fetchone()[0]
                for wanted in self._own(ranges)
            )

    def _own(self, ranges: Iterable[Range]) -> list[Range]:
        return [wanted for wanted in ranges if wanted.topic == self.topic]
