"""The miner's state as a fold over one partition of judged-events.

A pure function of the records. The only clock is the time in the records; it never runs backwards,
and time advances before a record is applied. So a new owner of the partition can replay the log
from the *low watermark* (the oldest record that an open trajectory needs) and gets the same pairs.
``docs/decisions/0002-mining-is-a-fold.md`` gives the reasons.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import astuple

from schemas import ProfileName
from schemas.errors import InvalidRecordError
from schemas.pairs import ClosedBy, pair_id
from schemas.settings import Settings
from streams.events import ABSENT, Agent, Browse, Event, Search, Skipped, Tick, read_judged
from streams.mine.mining import Decision, MinedPair, Pair, decide
from streams.mine.sources import Source, Sources
from streams.mine.steps import incomplete, unpack
from streams.mine.trajectories import (
    Arrival,
    ClosedTrajectories,
    Key,
    Limits,
    OpenTrajectory,
    Span,
    Start,
    UnnumberedTrajectory,
)

EventResult = Literal[Arrival, "rejudged", "refused", "undecodable"]


class Resume(NamedTuple):
    """Where and how a new owner of the partition continues; a commit's offset and metadata.

    Attributes:
        start: replay from here; its offset is the committed one.
        acknowledged: the pairs of records below this offset are on the topic, so a replay up to
            here is silent.
    """

    start: Start
    acknowledged: int

    def metadata(self) -> str:
        """The commit's metadata."""
        fields = (self.acknowledged, self.start.clock, self.start.sources)
        return msgspec.json.encode(fields).decode()

    @classmethod
    def parse(cls, offset: int, metadata: str | None) -> "Resume":
        """Read a commit; without our metadata only the offset is known.

        Then nothing is silent: pairs may be repeated, which readers expect, and none is lost.
        """
        try:
            acknowledged, clock, sources = _METADATA.decode(metadata or "")
        except msgspec.MsgspecError:
            return cls(Start(offset), offset)
        return cls(Start(offset, sources, clock), acknowledged)


_METADATA = msgspec.json.Decoder(tuple[int, int, tuple[Source, ...]])


@dataclass(frozen=True, slots=True)
class Refusal:
    """A judged event that does not continue its source; it is not applied.

    Attributes:
        offset: of its record on judged-events.
        topic_id, partition: its source.
        wanted: the source's next offset, with which it, or what it names as skipped, has to begin.
        got: the offset with which it begins.
    """

    offset: int
    topic_id: str
    partition: int
    wanted: int
    got: int


@lru_cache(maxsize=4_096)
def _agent(name: str, model: str) -> Agent:
    """Thousands of open trajectories share a few agents."""
    return Agent(name, model)


OnDecision = Callable[[str, Decision, Pair | None], object]
"""Called with a trajectory's id, each decision on one of its browses, and the pair of that."""


def _ignore(trajectory_id: str, decision: Decision, pair: Pair | None) -> None: ...


class Fold:
    """State of one partition of judged-events.

    Attributes:
        on_decision: called for each browse of a closed trajectory.
        counts: of records, browses and trajectories since the caller cleared it; keys are
            ``("events", result)``, ``("browses", result)``, ``("rank", verdict, rank)``,
            ``("closed", reason)``, ``("incomplete", reason, agent)``: trajectories that can give no
            pair, and browses outside of any, and ``("gaps", reason)``: how many events of
            trajectories closed for that reason never came (at most ``limits.events`` a trajectory).
            Silent records are not counted again.
        refusal: the last record that was refused, until its source continues.
        clock: log time in milliseconds.
    """

    def __init__(
        self,
        *,
        revision: str = "",
        profile: ProfileName = "reference",
        limits: Limits | None = None,
        start: Start | None = None,
    ) -> None:
        _, sources, self.clock = start or Start(0)
        self.on_decision: OnDecision = _ignore
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.refusal: Refusal | None = None
        self._revision = revision
        self._profile: ProfileName = profile
        self._limits = limits or Limits()
        self._sources = Sources(sources)
        self._open: dict[Key, OpenTrajectory] = {}
        self._offset = 0
        self._deadlines: list[tuple[int, int, Key]] = []
        self._closed = ClosedTrajectories(self._limits)

    @classmethod
    def of(cls, settings: Settings, start: Start | None = None) -> "Fold":
        """A fold by the revision, profile and limits of the settings."""
        limits = Limits.of(settings)
        return cls(revision=settings.revision, profile=settings.profile, limits=limits, start=start)

    @property
    def open_trajectories(self) -> int:
        """How many trajectories wait for their end."""
        return len(self._open)

    def apply(
        self, offset: int, timestamp: int, value: bytes, *, silent: bool = False
    ) -> list[Pair]:
        """Apply one record.

        Args:
            offset: of the record on judged-events; above all earlier ones.
            timestamp: the record's own, in milliseconds; the clock does not pass it.
            value: a judged event.
            silent: the pairs are on the topic already, so they are neither made nor counted.

        Returns:
            The pairs of every trajectory that this record or its time closes.
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
    ) -> list[Pair]:
        """Apply one decoded record; see :meth:`apply`."""
        self._offset = offset
        if isinstance(event, Tick):
            as_of = timestamp if event.as_of is None else min(event.as_of, timestamp)
            return self.advance(as_of, silent=silent)
        if isinstance(event, Skipped):
            self._continues(offset, event, silent)
            return []
        seq, start = event.seq, None
        if seq == 0 or (seq is None and isinstance(event, Search)):
            start = Start(offset, self._sources.known, self.clock)
        if not self._continues(offset, event, silent):
            return []
        time = event.source_time
        pairs = self.advance(time if time < timestamp else timestamp, silent=silent)
        key = (event.trajectory_id, seq is None)
        trajectory = self._open.get(key)
        full = trajectory is not None and trajectory.events >= self._limits.events
        if full and trajectory is not None and trajectory.closes_before(event):
            pairs += self._close(trajectory, "size", silent)
            trajectory = None
        if trajectory is None:
            if start is None:
                self._count("late", silent)
                if isinstance(event, Browse) and event.seq is None and not silent:
                    self.counts["incomplete", "no search", event.agent.name] += 1
                return pairs
            if self._closed.repeats(key, offset, self.clock):
                self._count("repeated", silent)
                return pairs
            trajectory = self._open_trajectory(key, event, start)
        elif start is not None:
            trajectory.span.last_opening = offset
        arrival = trajectory.arrive(event, offset, self.clock, self._limits)
        self._count(arrival, silent)
        if trajectory.outcome is not None:
            pairs += self._close(trajectory, "end", silent)
        elif trajectory.is_due_sooner(arrival):
            self._watch(trajectory)
        return pairs

    def hole(self) -> None:
        """Records before the next one are lost, so each source may continue at any offset."""
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

    def advance(self, now: int, *, silent: bool = False) -> list[Pair]:
        """Advance the clock to ``now``: pass old gaps, close idle and old trajectories."""
        if now > self.clock:
            self.clock = now
        pairs: list[Pair] = []
        while self._deadlines and self._deadlines[0][0] <= self.clock:
            _, first_offset, key = heapq.heappop(self._deadlines)
            trajectory = self._open.get(key)
            if trajectory is None or trajectory.span.start.offset != first_offset:
                continue
            deadline, reason = trajectory.deadline(self._limits)
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

    def close_all(self) -> list[Pair]:
        """Advance the clock until every open trajectory closes, as on a silent log."""
        limits = self._limits
        return self.advance(self.clock + limits.gap_ms + max(limits.age_ms, limits.idle_ms))

    def resume(self, next_offset: int, acknowledged: int) -> Resume:
        """What to commit when everything below ``next_offset`` was applied.

        Args:
            next_offset: of the next record.
            acknowledged: the pairs of records below this offset are on the topic.
        """
        oldest = next(iter(self._open.values()), None)
        now = Start(next_offset, self._sources.known, self.clock)
        wanted = now if oldest is None else oldest.span.start
        return Resume(self._closed.start(wanted, next_offset, self.clock), acknowledged)

    def _open_trajectory(self, key: Key, event: Event, start: Start) -> OpenTrajectory:
        kind = OpenTrajectory if event.seq is not None else UnnumberedTrajectory
        trajectory = kind(
            key=key,
            agent=_agent(event.agent.name, event.agent.model),
            tenant=event.tenant,
            opened=self.clock,
            span=Span(start, start.offset, start.offset, self.clock),
        )
        self._open[key] = trajectory
        self._watch(trajectory)
        return trajectory

    def _watch(self, trajectory: OpenTrajectory) -> None:
        """Keep an entry of the heap at or before the next deadline.

        Entries are not moved when a deadline does (each event moves the idle one); one that
        is due too early is replaced then.
        """
        deadline, _ = trajectory.deadline(self._limits)
        heapq.heappush(self._deadlines, (deadline, trajectory.span.start.offset, trajectory.key))

    def _close(self, trajectory: OpenTrajectory, reason: ClosedBy, silent: bool) -> list[Pair]:
        """Remove a trajectory from the state; returns its pairs, unless it is silent."""
        while trajectory.held and trajectory.outcome is None:
            trajectory.pass_gap()
        del self._open[trajectory.key]
        if not isinstance(trajectory, UnnumberedTrajectory):
            self._closed.add(trajectory.key, trajectory.span, self._offset, self.clock)
        if silent:
            return []
        closed_by: ClosedBy = "end" if trajectory.outcome is not None else reason
        self.counts["closed", closed_by] += 1
        if trajectory.missing:
            # A seq is any number: one broken client must not hide the others.
            missing = min(trajectory.missing, self._limits.events)
            self.counts["gaps", closed_by] += missing
        steps = list(unpack(trajectory.steps))
        if lacking := incomplete(steps):
            self.counts["incomplete", lacking, trajectory.agent.name] += 1
        pairs = []
        for decision in decide(steps, self._profile):
            self.counts["browses", decision.result] += 1
            if decision.rank is not None:
                self.counts["rank", decision.verdict, str(decision.rank)] += 1
            pair = None
            if decision.pair is not None:
                pair = self._pair(trajectory, closed_by, decision, decision.pair)
                pairs.append(pair)
            self.on_decision(trajectory.key[0], decision, pair)
        return pairs

    def _pair(
        self, trajectory: OpenTrajectory, closed_by: ClosedBy, decision: Decision, mined: MinedPair
    ) -> Pair:
        trajectory_id, _ = trajectory.key
        return Pair(
            *astuple(mined),
            pair_id=pair_id(self._revision, trajectory_id, decision.browse.name, self._profile),
            trajectory_id=trajectory_id,
            revision=self._revision,
            profile=self._profile,
            outcome=trajectory.outcome or "unknown",
            closed_by=closed_by,
            gaps=trajectory.missing,
            agent=trajectory.agent,
            tenant=trajectory.tenant,
            sources=(trajectory.span.start.offset, trajectory.span.last_offset),
        )

    def _count(self, result: EventResult, silent: bool) -> None:
        if not silent:
            self.counts["events", result] += 1
