"""Why the documents of a trajectory became positives, negatives or nothing.

The records of judged-events are applied once more, as a new owner of the partition would, so the
reasons are those of the function that made the pairs: :func:`streams.mine.mining.decide`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from retrail_runtime.kafka import Record
from schemas.errors import InvalidRecordError
from schemas.settings import Settings
from streams.events import Event, Skipped, Tick, read_judged
from streams.mine.fold import Fold
from streams.mine.mining import Decision, Pair


class Seen(NamedTuple):
    """An event of the trajectory, and what the fold made of it (accepted, repeated, late, …)."""

    offset: int
    event: Event
    result: str


class Explained(NamedTuple):
    """The events of a trajectory, and what each of its browses gave."""

    events: list[Seen]
    decisions: list[tuple[Decision, Pair | None]]


def explain(records: Iterable[Record], trajectory_id: str, settings: Settings) -> Explained:
    """Apply the records, and return what concerns one trajectory.

    Args:
        records: of one partition of judged-events, from the opening event of the trajectory to its
            last one, with those of other trajectories. After them time passes until it is closed.
    """
    seen: list[Seen] = []
    decisions: list[tuple[Decision, Pair | None]] = []

    def keep(trajectory: str, decision: Decision, pair: Pair | None) -> None:
        if trajectory == trajectory_id:
            decisions.append((decision, pair))

    fold = Fold.of(settings)
    fold.on_decision = keep
    for record in records:
        try:
            event = read_judged(record.value or b"")
        except InvalidRecordError:
            continue
        fold.counts.clear()
        fold.apply_event(record.offset, record.timestamp, event)
        if not isinstance(event, Tick | Skipped) and event.trajectory_id == trajectory_id:
            result = next(result for kind, result, *_ in fold.counts if kind == "events")
            seen.append(Seen(record.offset, event, result))
    fold.close_all()
    return Explained(seen, decisions)
