"""Putting the events of one trajectory in order.

The broker keeps the order of a partition, but a client that retries, a file that is published twice
or a network that duplicates does not: events are repeated, come early, or never come. The first
event of a seq on the log wins; events ahead of a gap are held until the gap is filled or too old.
"""

from dataclasses import dataclass, field
from typing import Literal

from schemas.events import Agent, Outcome
from streams.events import End, Event
from streams.mine.closed import Start
from streams.mine.steps import BreakStep, pack, step_of

Arrival = Literal["accepted", "held", "repeated", "late"]


@dataclass(slots=True)
class OpenTrajectory:
    """One trajectory between its seq 0 and its close.

    Times are milliseconds of log time, offsets those of judged-events.

    Attributes:
        start: offset of its opening event, from which the log is needed, and what a fold that
            starts there must know.
        last_opening: offset of the last repeat of seq 0.
        next_seq: the lowest seq that has neither come nor been passed.
        held: events ahead of a gap, with their arrival times.
        missing: events passed as never coming; ``passed`` holds their seqs.
        steps: what came, in order, packed.
        outcome: set once the end event was reached in order.
    """

    trajectory_id: str
    agent: Agent
    tenant: str
    start: Start
    last_offset: int
    opened: int
    touched: int
    last_opening: int
    next_seq: int = 0
    events: int = 0
    missing: int = 0
    steps: list[bytes] = field(default_factory=list)
    held: dict[int, tuple[int, Event]] | None = None
    passed: tuple[range, ...] = ()
    outcome: Outcome | None = None

    def arrive(self, event: Event, now: int) -> Arrival:
        """Take one event; returns what became of it."""
        seq = event.seq
        if seq < self.next_seq:
            return "late" if any(seq in gap for gap in self.passed) else "repeated"
        if seq > self.next_seq:
            held = self.held = {} if self.held is None else self.held
            if seq in held:
                return "repeated"
            held[seq] = (now, event)
            self.events += 1
            return "held"
        self.events += 1
        self._append(event)
        self._drain()
        return "accepted"

    def gap_since(self) -> int | None:
        """When the first event behind the present gap arrived; ``None`` without a gap."""
        # Log time never runs backwards, so the first in the order of insertion is the oldest.
        return next(iter(self.held.values()))[0] if self.held else None

    def pass_gap(self) -> None:
        """Give up on the events before the lowest held one, and go on with that."""
        if not self.held:
            return
        lowest = min(self.held)
        self.passed = (*self.passed, range(self.next_seq, lowest))
        self.missing += lowest - self.next_seq
        pack(self.steps, BreakStep(self.next_seq))
        self.next_seq = lowest
        self._drain()

    def _drain(self) -> None:
        while self.held and self.outcome is None and self.next_seq in self.held:
            _, event = self.held.pop(self.next_seq)
            self._append(event)

    def _append(self, event: Event) -> None:
        self.next_seq = event.seq + 1
        if isinstance(event, End):
            self.outcome = event.outcome
        else:
            pack(self.steps, step_of(event))
