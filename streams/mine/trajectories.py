"""Trajectories of one partition: open ones order their events, closed ones are remembered.

A partition keeps its records' order, but a client that retries, a file that is published twice or a
network that duplicates does not: events are repeated, arrive early, or never arrive.

A *numbered* trajectory opens with seq 0. The first event of a seq on the log wins; events ahead of
a gap are held until the gap is filled or too old. ``end``, idle time, age or size closes it.

An *unnumbered* trajectory (no event has a seq) opens with a search, and its order is that of the
log. A repeat is an event whose event_id the open trajectory has; gaps cannot be seen. Only ``end``
or idle time closes it, which is shorter after the end of a session. Both depend on its last event
only, not on where a fold began to read it, so a fold that starts in its middle closes it at the
same record.
"""

from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple

from schemas.events import SESSION_END, Outcome
from schemas.pairs import ClosedBy
from schemas.settings import Settings
from streams.events import Agent, End, Event, Other
from streams.mine.sources import Source
from streams.mine.steps import BreakStep, pack, step_of

Arrival = Literal["accepted", "held", "repeated", "late", "oversize"]
Key = tuple[str, bool]
"""A trajectory's id, and whether it is unnumbered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a gap is passed, a trajectory closed and forgotten; times in ms of log time.

    Other limits close trajectories at other records, so a change needs a new ``RETRAIL_REVISION``:
    a fold that resumes would skip pairs that were never written (``docs/operations.md``).

    A closed trajectory is forgotten ``gap_ms``, or ``remembered_records`` offsets, after its last
    event. The latter bounds memory and the length of a replay where many events arrive at once.
    """

    gap_ms: int = 30_000
    idle_ms: int = 1_800_000
    age_ms: int = 6 * 3_600_000
    events: int = 2_000
    remembered_records: int = 100_000

    @property
    def session_ms(self) -> int:
        """Idle time of an unnumbered trajectory after the end of its session."""
        return self.idle_ms // 6

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """The limits of the settings."""
        return cls(
            gap_ms=int(settings.mine_gap_seconds * 1000),
            idle_ms=int(settings.mine_idle_seconds * 1000),
            age_ms=int(settings.mine_max_age_seconds * 1000),
            events=settings.mine_max_events,
        )


class Start(NamedTuple):
    """Where a fold may start: an offset, and the sources and the log time before it."""

    offset: int
    sources: tuple[Source, ...] = ()
    clock: int = 0


@dataclass(slots=True)
class Span:
    """Where a trajectory is on judged-events.

    Attributes:
        start: right before its opening event; from there on the log is needed.
        last_opening: offset of its opening event, or of the last repeat of that.
        last_offset, touched: offset and log time (ms) of its last event that counted.
    """

    start: Start
    last_opening: int
    last_offset: int
    touched: int


@dataclass(slots=True)
class OpenTrajectory:
    """A numbered trajectory between its seq 0 and its close.

    Attributes:
        opened: log time of its opening event, in milliseconds.
        next_seq: the lowest seq that has neither arrived nor been passed.
        held: events ahead of a gap, with their arrival times.
        missing: number of events that were passed; ``passed`` holds their seqs.
        steps: what arrived, in order, packed.
        outcome: set once the end event was reached in order.
    """

    key: Key
    agent: Agent
    tenant: str
    opened: int
    span: Span
    next_seq: int = 0
    events: int = 0
    missing: int = 0
    steps: list[bytes] = field(default_factory=list)
    held: dict[int, tuple[int, Event]] | None = None
    passed: tuple[range, ...] = ()
    outcome: Outcome | None = None

    def closes_before(self, event: Event) -> bool:
        """Whether the event, of a trajectory with as many as may be, is new and so closes it."""
        return (event.seq or 0) >= self.next_seq

    def arrive(self, event: Event, offset: int, now: int, limits: Limits) -> Arrival:
        """Take one event; returns its result."""
        seq = event.seq or 0
        if seq < self.next_seq:
            return "late" if any(seq in gap for gap in self.passed) else "repeated"
        if self.held is not None and seq in self.held:
            return "repeated"
        self.events += 1
        span = self.span
        span.last_offset, span.touched = offset, now
        if seq > self.next_seq:
            held = self.held = {} if self.held is None else self.held
            held[seq] = (now, event)
            return "held"
        self._append(event)
        if self.held:
            self._drain()
        return "accepted"

    def deadline(self, limits: Limits) -> tuple[int, ClosedBy | Literal["gap"]]:
        """When it closes, or its gap is passed, if no event arrives; and the reason."""
        deadlines: list[tuple[int, ClosedBy | Literal["gap"]]] = [
            (self.opened + limits.age_ms, "age"),
            (self.span.touched + limits.idle_ms, "idle"),
        ]
        if self.held:
            # Log time never runs backwards, so the first in the order of insertion is the oldest.
            gap_since, _ = next(iter(self.held.values()))
            deadlines.append((gap_since + limits.gap_ms, "gap"))
        return min(deadlines, key=lambda deadline: deadline[0])

    def is_due_sooner(self, arrival: Arrival) -> bool:
        """Whether the event that arrived last brought the deadline forward."""
        # A gap that just opened is due before what is watched already; a later one is not.
        return arrival == "held" and self.held is not None and len(self.held) == 1

    def pass_gap(self) -> None:
        """Skip the events before the lowest held one, and continue with that."""
        if not self.held:
            return
        lowest = min(self.held)
        self.passed = (*self.passed, range(self.next_seq, lowest))
        self.missing += lowest - self.next_seq
        pack(self.steps, BreakStep())
        self.next_seq = lowest
        self._drain()

    def _drain(self) -> None:
        while self.held and self.outcome is None and self.next_seq in self.held:
            _, event = self.held.pop(self.next_seq)
            self._append(event)

    def _append(self, event: Event) -> None:
        self.next_seq += 1
        if isinstance(event, End):
            self.outcome = event.outcome
        else:
            pack(self.steps, step_of(event))


@dataclass(slots=True)
class UnnumberedTrajectory(OpenTrajectory):
    """An unnumbered trajectory between its first search and its close.

    Attributes:
        event_ids: 8 bytes for each event that was accepted, the digest of its id.
        span: ``touched`` is of its last event, also if that was dropped.
        session_ended: whether that was the end of a session.
    """

    event_ids: bytearray = field(default_factory=bytearray)
    session_ended: bool = False

    def closes_before(self, event: Event) -> bool:
        """Its size never closes it."""
        return False

    def arrive(self, event: Event, offset: int, now: int, limits: Limits) -> Arrival:
        """Take one event; an ``end`` always closes it."""
        self.span.touched = now
        ended_before = self.session_ended
        self.session_ended = isinstance(event, Other) and event.name == SESSION_END
        if self.session_ended:
            return "repeated" if ended_before else "accepted"
        if not isinstance(event, End):
            digest = blake2b(event.event_id.encode(), digest_size=8).digest()
            if digest in self.event_ids:
                return "repeated"
            if self.events >= limits.events:
                return "oversize"
            self.event_ids += digest
        self.events += 1
        self.span.last_offset = offset
        self._append(event)
        return "accepted"

    def deadline(self, limits: Limits) -> tuple[int, ClosedBy | Literal["gap"]]:
        """When it closes if no event arrives."""
        idle_ms = limits.session_ms if self.session_ended else limits.idle_ms
        return self.span.touched + idle_ms, "idle"

    def is_due_sooner(self, arrival: Arrival) -> bool:
        """Whether the event that arrived last brought the deadline forward."""
        return self.session_ended and arrival == "accepted"


class ClosedTrajectories:
    """The closed numbered trajectories of a partition, as long as they matter.

    A repeat of a closed trajectory's seq 0 would open it again, and further repeats, without the
    events between them, would give other pairs. So a closed trajectory is remembered until the gap
    window has passed since its last event. A repeat that arrives later opens it again; if all its
    events are repeated, it gives equal pairs. Remembering longer would need unlimited memory.

    A fold that starts again must remember the same trajectories, so it starts before their
    openings. An unnumbered trajectory is not remembered: a search that arrives after its close
    opens a new one, whose pairs have ids of their own.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._remembered: dict[Key, Span] = {}
        self._order: deque[tuple[Key, Span]] = deque()
        self._reopened: deque[Span] = deque()

    def add(self, key: Key, closed: Span, offset: int, clock: int) -> None:
        """Remember a trajectory that the record at ``offset`` closed, at log time ``clock``."""
        self._forget(offset, clock)
        if self._counts(closed, offset, clock):
            self._remembered[key] = closed
            self._order.append((key, closed))
        else:
            self._let_go(closed)

    def repeats(self, key: Key, offset: int, clock: int) -> bool:
        """Whether the seq 0 at ``offset``, of a trajectory that is not open, is a repeat."""
        closed = self._remembered.get(key)
        if closed is None or not self._counts(closed, offset, clock):
            return False
        closed.last_opening = offset
        return True

    def start(self, wanted: Start, next_offset: int, clock: int) -> Start:
        """The last start, not after ``wanted``, from which no fold treats a repeat as an opening.

        Args:
            wanted: right before the oldest open trajectory, or the next record.
            next_offset: of the next record.
            clock: log time before it.
        """
        self._forget(next_offset, clock)
        start = min([wanted, *(closed.start for _, closed in self._order)])
        for closed in sorted(self._reopened, key=lambda closed: closed.start, reverse=True):
            if closed.start < start and start.offset <= closed.last_opening:
                start = closed.start
        # Starts never go back, so no later one reads a repeat that this one does not.
        while self._reopened and self._reopened[0].last_opening < start.offset:
            self._reopened.popleft()
        return start

    def _counts(self, closed: Span, offset: int, clock: int) -> bool:
        age, behind = clock - closed.touched, offset - closed.last_offset
        return age < self._limits.gap_ms and behind < self._limits.remembered_records

    def _forget(self, offset: int, clock: int) -> None:
        while self._order and not self._counts(self._order[0][1], offset, clock):
            key, closed = self._order.popleft()
            if self._remembered[key] is closed:
                del self._remembered[key]
            self._let_go(closed)

    def _let_go(self, closed: Span) -> None:
        """A fold that starts between its opening and a repeat would open it at the repeat."""
        if closed.last_opening > closed.start.offset:
            self._reopened.append(closed)
