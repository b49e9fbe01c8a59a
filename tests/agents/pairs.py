"""What is learned from scripted agents' events, in the fields that any way of publishing shares."""

from collections.abc import Iterable

from schemas.events import Envelope
from schemas.settings import Settings
from tests.streams.trajectories import mined_offline

Pair = tuple[str, str, tuple[str, ...], str, int | None]
"""Query, positive, negatives, verdict, and tokens of the reasoning."""


def pairs(events: Iterable[Envelope], settings: Settings) -> list[Pair]:
    """The pairs of events in the order of the log."""
    return sorted(
        (pair.query, pair.positive, pair.negatives, pair.verdict, pair.reasoning_tokens)
        for pair in mined_offline(events, settings).values()
    )
