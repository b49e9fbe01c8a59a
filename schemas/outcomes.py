"""Outcomes that are known only later (topic ``outcomes``, compacted, key ``trajectory_id``).

An agent that knows at its end whether it was right says so in its ``end`` event. Often nobody knows
before a user's feedback the next day; then the last report about a trajectory counts instead. An
empty value takes it back. Kept as long as pairs are: a run may replay a pair of any age.
"""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Change, Contract, Moment, TrajectoryId, decode_change

ReportedOutcome = Literal["correct", "incorrect"]


class OutcomeReport(Contract):
    """Somebody learned how a trajectory ended.

    Attributes:
        trajectory_id: as in its events; the record's key too.
        outcome: whether its answer was right.
        reported_at: when the report was made.
        source: who says so, for instance ``user`` or the name of an evaluation.
    """

    trajectory_id: TrajectoryId
    outcome: ReportedOutcome
    reported_at: Moment
    source: Annotated[str, Field(max_length=128)] = ""


def encode(report: OutcomeReport) -> tuple[bytes, bytes]:
    """Key and value of a report's record."""
    return report.trajectory_id.encode(), report.to_json()


def read_change(key: bytes | None, value: bytes | None) -> Change[OutcomeReport]:
    """What a record of ``outcomes`` makes of the report on its trajectory; never raises."""
    return decode_change(OutcomeReport, "trajectory_id", key, value)
