"""Outcomes that became known later, from a local copy of the compacted topic ``outcomes``."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import structlog

from consumers import metrics
from consumers.releases import complaint
from retrail_runtime.following import Follower
from retrail_runtime.kafka import Record
from schemas.outcomes import OutcomeReport, ReportedOutcome
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)


class KnownOutcomes:
    """What had been reported at one moment; for the thread that asked for it.

    Attributes:
        ranges: the records of ``outcomes`` that had been read, of each partition with any.
    """

    def __init__(self, db: sqlite3.Connection, topic: str) -> None:
        self._db = db
        self.ranges = tuple(
            Range(topic=topic, partition=partition, start=0, end=end)
            for partition, end in db.execute(
                "SELECT partition, next FROM position WHERE next > 0 ORDER BY partition"
            )
        )

    def of(self, trajectory_id: str) -> ReportedOutcome | None:
        """The last report about a trajectory; ``None`` without one."""
        found: tuple[ReportedOutcome] | None = self._db.execute(
            "SELECT outcome FROM outcomes WHERE trajectory_id = ?", (trajectory_id,)
        ).fetchone()
        return found[0] if found else None


class OutcomeStore(Follower):
    """The last report about every trajectory; reading is safe from any thread."""

    tables: ClassVar[str] = """
    CREATE TABLE IF NOT EXISTS outcomes (trajectory_id TEXT PRIMARY KEY, outcome TEXT NOT NULL);
    """
    max_absence_seconds: ClassVar[float | None] = 6 * 24 * 3600.0

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, Topics.of(settings).outcomes, folder)

    def apply(self, db: sqlite3.Connection, records: Sequence[Record]) -> None:
        """The last report of a trajectory wins; a malformed one is counted and changes nothing."""
        for record in records:
            try:
                trajectory_id, report = read(record)
            except ValueError as error:
                metrics.INVALID_RECORDS.labels(stage="outcomes").inc()
                log.warning(
                    "malformed outcome passed over",
                    partition=record.partition,
                    offset=record.offset,
                    error=complaint(error),
                )
                continue
            if report is None:
                db.execute("DELETE FROM outcomes WHERE trajectory_id = ?", (trajectory_id,))
            else:
                db.execute("REPLACE INTO outcomes VALUES (?, ?)", (trajectory_id, report.outcome))

    @contextmanager
    def snapshot(self) -> Iterator[KnownOutcomes]:
        """What is known now, while the copy goes on growing."""
        with self.reading() as db:
            yield KnownOutcomes(db, self.topic)


def read(record: Record) -> tuple[str, OutcomeReport | None]:
    """Trajectory and report of a record of ``outcomes``; ``None`` takes a report back.

    Raises:
        ValueError: the key is missing or not the trajectory's id, or the value is no report.
    """
    if record.key is None:
        raise ValueError("an outcome has its trajectory's id as key")
    trajectory_id = record.key.decode()
    if not record.value:
        return trajectory_id, None
    report = OutcomeReport.model_validate_json(record.value)
    if report.trajectory_id != trajectory_id:
        raise ValueError(f"key {trajectory_id!r} is not the trajectory of the report")
    return trajectory_id, report
