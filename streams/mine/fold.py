"""The miner's state as a fold over one partition of judged-events.

Pure: records in, pairs out; the only clock is the time that the records carry, which never runs
backwards and passes before a record is applied. Because of that, a new owner of the partition can
fold again from the *low watermark* (the oldest record that an open trajectory needs) and arrives at
the same pairs; ``docs/decisions/`` says why there is no state store.
"""

import heapq
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import msgspec
from msgspec.structs import asdict

from schemas import ProfileName
from schemas.errors import InvalidRecordError
from schemas.events import Agent
from schemas.pairs import ClosedBy, LabelledPair, pair_id
from schemas.settings import Settings
from streams.events import ABSENT, Event, Skipped, Tick, read_judged
from streams.mine.closed import Closed, ClosedTrajectories, Start
from streams.mine.mining import MinedPair, mine
from streams.mine.sequencing import OpenTrajectory
from streams.mine.sources import Source, Sources
from streams.mine.steps import unpack


@dataclass(frozen=True, slots=True)
class Limits:
    """When a gap is passed, a trajectory closed and forgotten; times in ms of log time.

    Other limits close trajectories at other records, so they need another ``RETRAIL_REVISION``:
    a fold that resumes would skip pairs which nobody wrote (``docs/operations.md``).

    A closed trajectory is forgotten ``gap_ms``, or ``remembered_records`` offsets, after its last
    event: the latter bounds memory, and what is read again, where many events come at once.
    """

    gap_ms: int = 30_000
    idle_ms: int = 1_800_000
    age_ms: int = 6 * 3_600_000
    events: int = 2_000
    remembered_records: int = 100_000

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """The limits that the settings ask for."""
        return cls(
            gap_ms=int(settings.mine_gap_seconds * 1000),
            idle_ms=int(settings.mine_idle_seconds * 1000),
            age_ms=int(settings.mine_max_age_seconds * 1000),
            events=settings.mine_max_events,
        )


@dataclass(frozen=True, slots=True)
class Resume:
    """Where and how a new owner of the partition continues; a commit's offset and metadata.

    Attributes:
        offset: fold again from here; the committed offset.
        acknowledged: the pairs of records below this offset are on the topic: fold silently.
        sources: how far they had come before ``offset``.
        clock: log time before ``offset``, in milliseconds.
    """

    offset: int
    acknowledged: int
    sources: tuple[Source, ...] = ()
    clock: int = 0

    def metadata(self) -> str:
        """The commit's metadata."""
        fields = (self.acknowledged, self.clock, self.sources)
        return msgspec.json.encode(fields).decode()

    @classmethod
    def parse(cls, offset: int, metadata: str | None) -> "Resume":
        """Read a commit; without our metadata nothing is known but the offset.

        Then nothing is silent: pairs may be repeated, which readers expect, and none is lost.
        """
        try:
            acknowledged, clock, sources = _METADATA.decode(metadata or "")
        except msgspec.MsgspecError:
            return cls(offset, offset)
        return cls(offset, acknowledged, sources, clock)


_METADATA = msgspec.json.Decoder(tuple[int, int, tuple[Source, ...]])


@dataclass(frozen=True, slots=True)
class Refusal:
    """A judged event that does not continue its source; it is not folded.

    Attributes:
        offset: of its record on judged-events.
        topic_id, partition: its source,
        wanted: the offset of the source that it, or what it names as skipped, had to begin with,
        got: and with which it begins.
    """

    offset: int
    topic_id: str
    partition: int
    wanted: int
    got: int


@lru_cache(maxsize=4_096)
def _agent(name: str, model: str) -> Agent:
    """Thousands of open trajectories share few agents."""
    return Agent(name=name, model=model)


class Fold:
    """State of one partition of judged-events.

    Attributes:
        counts: what became of records, browses and trajectories since somebody cleared it; keys are
            ``("events", result)``, ``("browses", result)``, ``("rank", verdict, rank)``,
            ``("closed", reason)`` and ``("gaps", reason)``: how many events of trajectories closed
            for that reason never came (at most ``limits.events`` a trajectory). Silent records are
            not counted again.
        refusal: the last record that was refused, until its source goes on.
        clock: log time in milliseconds.
    """

    def __init__(
        self,
        *,
        revision: str = "",
        profile: ProfileName = "reference",
        limits: Limits | None = None,
        sources: tuple[Source, ...] = (),
        clock: int = 0,
    ) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.clock = clock
        self._revision = revision
        self._profile: ProfileName = profile
        self._limits = limits or Limits()
        self.refusal: Refusal | None = None
        self._sources = Sources(sources)
        self._open: dict[str, OpenTrajectory] = {}
        self._offset = 0
        self._deadlines: list[tuple[int, int, str]] = []
        self._closed = ClosedTrajectories(self._limits.gap_ms, self._limits.remembered_records)

    @property
    def open_trajectories(self) -> int:
        """How many trajectories wait for their end."""
        return len(self._open)

    def apply(
        self, offset: int, timestamp: int, value: bytes, *, silent: bool = False
    ) -> list[LabelledPair]:
        """Fold one record in.

        Args:
            offset: of the record on judged-events; above all earlier ones.
            timestamp: the record's own, in milliseconds; no record brings a later time.
            value: a judged event.
            silent: the pairs are known to be on the topic, so they are neither made nor counted.

        Returns:
            The pairs of every trajectory that this record, or the time that it brings, closes.
        """
        try:
            event = read_judged(value)
        except InvalidRecordError:
            self._offset = offset
            self._count("undecodable", silent)
            return []
        return self.apply_event(offset, timestamp, event, silent=silent)

    def apply_event(
        self, offset: int, timestamp: int, event: Event | Skipped | Tick, *, silent: bool = False
    ) -> list[LabelledPair]:
        """Fold one decoded record in; see :meth:`apply`."""
        self._offset = offset
        if isinstance(event, Tick):
            as_of = timestamp if event.as_of is None else min(event.as_of, timestamp)
            return self.advance(as_of, silent=silent)
        # Only an opening needs it, and 1 event in 20 is one.
        opens = not isinstance(event, Skipped) and event.seq == 0
        start = Start(offset, self._sources.known, self.clock) if opens else None
        if not self._continues(offset, event, silent) or isinstance(event, Skipped):
            return []
        pairs = self.advance(min(event.source_time, timestamp), silent=silent)
        trajectory = self._open.get(event.trajectory_id)
        if trajectory is not None and self._overflows(trajectory, event):
            pairs += self._close(trajectory, "size", silent)
            trajectory = None
        if trajectory is None:
            if start is None:
                self._count("late", silent)
                return pairs
            if self._closed.repeats(event.trajectory_id, offset, self.clock):
                self._count("repeated", silent)
                return pairs
            trajectory = self._open_trajectory(event, start)
        elif event.seq == 0:
            trajectory.last_opening = offset
        arrival = trajectory.arrive(event, self.clock)
        self._count(arrival, silent)
        if arrival in ("accepted", "held"):
            trajectory.last_offset, trajectory.touched = offset, self.clock
        if trajectory.outcome is not None:
            pairs += self._close(trajectory, "end", silent)
        elif arrival == "held":
            self._watch_gap(trajectory)
        return pairs

    def hole(self) -> None:
        """Records before the next one are lost: each source may go on anywhere."""
        self._sources, self.refusal = Sources(), None

    def _continues(self, offset: int, event: Event | Skipped, silent: bool) -> bool:
        """Whether the record is the next one of its source; else it is counted."""
        topic_id, partition = event.source_topic_id, event.source_partition
        last = event.source_offset
        first = last if event.skipped_from == ABSENT else event.skipped_from
        arrival = self._sources.arrive(topic_id, partition, first, last)
        if arrival == "next":
            if self.refusal is not None and self.refusal.topic_id == topic_id:
                self.refusal = None
            return True
        if arrival == "refused":
            wanted = self._sources.next_of(topic_id, partition)
            self.refusal = Refusal(offset, topic_id, partition, wanted, first)
        self._count("rejudged" if arrival == "repeated" else arrival, silent)
        return False

    def advance(self, now: int, *, silent: bool = False) -> list[LabelledPair]:
        """Let time pass up to ``now``: pass old gaps, close what is idle or old."""
        self.clock = max(self.clock, now)
        pairs: list[LabelledPair] = []
        while self._deadlines and self._deadlines[0][0] <= self.clock:
            _, first_offset, trajectory_id = heapq.heappop(self._deadlines)
            trajectory = self._open.get(trajectory_id)
            if trajectory is None or trajectory.start.offset != first_offset:
                continue
            deadline, reason = self._deadline(trajectory)
            if deadline > self.clock:
                self._watch(trajectory)
            elif reason == "gap":
                trajectory.pass_gap()
                if trajectory.outcome is not None:
                    pairs += self._close(trajectory, "end", silent)
                else:
                    self._watch(trajectory)
            else:
                pairs += self._close(trajectory, reason, silent)
        return pairs

    def close_all(self) -> list[LabelledPair]:
        """Let all the time pass that can: what is open ends as it would on a log gone quiet."""
        return self.advance(self.clock + self._limits.gap_ms + self._limits.age_ms)

    def resume(self, next_offset: int, acknowledged: int) -> Resume:
        """What to commit when everything below ``next_offset`` was folded.

        Args:
            next_offset: of the record that comes next.
            acknowledged: the pairs of records below this offset are on the topic.
        """
        oldest = next(iter(self._open.values()), None)
        now = Start(next_offset, self._sources.known, self.clock)
        wanted = now if oldest is None else oldest.start
        start = self._closed.start(wanted, next_offset, self.clock)
        return Resume(start.offset, acknowledged, start.sources, start.clock)

    def _open_trajectory(self, event: Event, start: Start) -> OpenTrajectory:
        trajectory = OpenTrajectory(
            trajectory_id=event.trajectory_id,
            agent=_agent(event.agent.name, event.agent.model),
            tenant=event.tenant,
            start=start,
            last_offset=start.offset,
            opened=self.clock,
            touched=self.clock,
            last_opening=start.offset,
        )
        self._open[event.trajectory_id] = trajectory
        self._watch(trajectory)
        return trajectory

    def _overflows(self, trajectory: OpenTrajectory, event: Event) -> bool:
        return trajectory.events >= self._limits.events and event.seq >= trajectory.next_seq

    def _deadline(self, trajectory: OpenTrajectory) -> tuple[int, ClosedBy | Literal["gap"]]:
        limits, gap_since = self._limits, trajectory.gap_since()
        deadlines: list[tuple[int, ClosedBy | Literal["gap"]]] = [
            (trajectory.opened + limits.age_ms, "age"),
            (trajectory.touched + limits.idle_ms, "idle"),
        ]
        if gap_since is not None:
            deadlines.append((gap_since + limits.gap_ms, "gap"))
        return min(deadlines, key=lambda deadline: deadline[0])

    def _watch_gap(self, trajectory: OpenTrajectory) -> None:
        """A gap that just opened is due before what is watched already; a later one is not."""
        if trajectory.held is not None and len(trajectory.held) == 1:
            self._watch(trajectory)

    def _watch(self, trajectory: OpenTrajectory) -> None:
        """See to it that the heap holds an entry at or before the next deadline.

        Entries are not moved when a deadline does (each event moves the idle one); one that comes
        up too early is replaced then.
        """
        deadline, _ = self._deadline(trajectory)
        entry = (deadline, trajectory.start.offset, trajectory.trajectory_id)
        heapq.heappush(self._deadlines, entry)

    def _close(
        self, trajectory: OpenTrajectory, reason: ClosedBy, silent: bool
    ) -> list[LabelledPair]:
        """Take a trajectory out of the state; its pairs, unless they are known to be there."""
        while trajectory.held and trajectory.outcome is None:
            trajectory.pass_gap()
        del self._open[trajectory.trajectory_id]
        closed = Closed(
            trajectory.start, trajectory.last_opening, trajectory.last_offset, trajectory.touched
        )
        self._closed.add(trajectory.trajectory_id, closed, self._offset, self.clock)
        if silent:
            return []
        closed_by: ClosedBy = "end" if trajectory.outcome is not None else reason
        self.counts["closed", closed_by] += 1
        if trajectory.missing:
            # A seq is any number: one broken client must not drown the others.
            missing = min(trajectory.missing, self._limits.events)
            self.counts["gaps", closed_by] += missing
        mined = mine(unpack(trajectory.steps), self._profile, self.counts)
        return [self._pair(trajectory, closed_by, pair) for pair in mined]

    def _pair(
        self, trajectory: OpenTrajectory, closed_by: ClosedBy, mined: MinedPair
    ) -> LabelledPair:
        return LabelledPair.model_validate(
            asdict(mined)
            | {
                "pair_id": pair_id(
                    self._revision, trajectory.trajectory_id, mined.browse_seq, self._profile
                ),
                "trajectory_id": trajectory.trajectory_id,
                "revision": self._revision,
                "profile": self._profile,
                "outcome": trajectory.outcome or "unknown",
                "closed_by": closed_by,
                "gaps": trajectory.missing,
                "agent": trajectory.agent,
                "tenant": trajectory.tenant,
                "sources": (trajectory.start.offset, trajectory.last_offset),
            }
        )

    def _count(self, result: str, silent: bool) -> None:
        if not silent:
            self.counts["events", result] += 1
