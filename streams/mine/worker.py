"""The worker ``mine``: judged-events → labelled-pairs, a fold over each partition's log.

There is no state store. The commit point is the *low watermark*, the oldest record that an open
trajectory still needs; the metadata holds the offset up to which all pairs are acknowledged. A new
owner of the partition replays from the low watermark, silently up to that offset, and continues.
:mod:`streams.loop.checkpoint` has the steps of a checkpoint, :mod:`streams.mine.fold` the reasons
why any cut gives the same pairs.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Final, get_args

import structlog

from retrail_runtime.erasures import ErasureLog
from retrail_runtime.kafka import Outgoing, require_broker
from retrail_runtime.metrics import ERASED
from retrail_runtime.retry import Deadline
from schemas.erasures import Erasures
from schemas.pairs import PairVerdict
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES, Topics
from streams.events import encode
from streams.loop import process
from streams.loop.checkpoint import Committed, Outbox
from streams.loop.partition import Assignment, PartitionTask, Record
from streams.mine import metrics
from streams.mine.fold import Fold, Resume
from streams.mine.mining import Pair

log = structlog.get_logger(__name__)

ROLE: Final = "mine"


class MineTask(PartitionTask):
    """Mines one partition of judged-events."""

    def __init__(
        self,
        assignment: Assignment,
        topics: Topics,
        settings: Settings,
        erasures: Callable[[], Erasures] = Erasures,
    ) -> None:
        """Continues from the checkpoint of ``assignment``; ``erasures`` returns those of now."""
        self._topic, self._erasures = topics.labelled_pairs, erasures
        resume = Resume.parse(assignment.start.offset, assignment.start.metadata)
        self._partition = assignment.partition
        self._next = resume.start.offset
        self._acknowledged = resume.acknowledged
        self._fold = Fold.of(settings, resume.start)
        self._written: Counter[PairVerdict] = Counter()
        self._outbox = Outbox(assignment.channel(topics.labelled_pairs), assignment.fail)

    @property
    def has_capacity(self) -> bool:
        """Whether not too many pairs are unacknowledged."""
        return self._outbox.has_capacity

    @property
    def recovered(self) -> bool:
        """Whether it has replayed all records whose pairs a former owner wrote."""
        return self._next >= self._acknowledged

    @property
    def refusing(self) -> bool:
        """Whether a source has a hole that no record names."""
        return self._fold.refusal is not None

    def hole(self) -> None:
        """Records of judged-events are lost; their sources continue after them."""
        self._fold.hole()

    def process(self, records: Sequence[Record], end: int) -> None:
        """Apply the records, and send their pairs."""
        for record in records:
            silent = record.offset < self._acknowledged
            value = record.value or b""
            for pair in self._fold.apply(record.offset, record.timestamp, value, silent=silent):
                self._write(record.offset, pair)
        self._next = end
        self._count()

    def _write(self, offset: int, pair: Pair) -> None:
        # Not in the fold, which must give the same pairs whenever it is repeated.
        if self._erasures().of_pair(pair, self._topic, None, self._partition):
            ERASED.labels("mine").inc()
            return
        output = Outgoing(pair.trajectory_id.encode(), encode(pair))
        if output.size > MAX_EVENT_BYTES:
            metrics.OVERSIZED_PAIRS.inc()
            log.error("pair is too large for its topic", pair_id=pair.pair_id)
            return
        self._outbox.put(offset, output, len(output.value or b""))
        self._written[pair.verdict] += 1
        _NEGATIVES[pair.verdict].observe(len(pair.negatives))

    async def commit_point(self) -> Committed:
        """The low watermark, when the pairs of all records so far are acknowledged."""
        point = self._fold.resume(self._next, max(self._next, self._acknowledged))
        await self._outbox.acknowledged()
        return Committed(point.start.offset, point.metadata())

    async def finish(self, deadline: Deadline) -> Committed | None:
        """Stop; a last commit point, if all pairs are acknowledged by the deadline."""
        point = None
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline.remaining):
                point = await self.commit_point()
        await self._outbox.close(Deadline(0))
        metrics.OPEN.labels(self._partition).set(0)
        return point

    def _count(self) -> None:
        """Move the counts into the metrics."""
        for verdict, number in self._written.items():
            metrics.PAIRS.labels(verdict).inc(number)
        self._written.clear()
        if self._fold.counts["events", "refused"]:
            log.error(
                "judged events are refused: offsets of their source are missing before them",
                number=self._fold.counts["events", "refused"],
                last=self._fold.refusal and asdict(self._fold.refusal),
                on_partition=self._partition,
            )
        show(self._fold.counts)
        self._fold.counts.clear()
        metrics.OPEN.labels(self._partition).set(self._fold.open_trajectories)


_NEGATIVES = {verdict: metrics.NEGATIVES.labels(verdict) for verdict in get_args(PairVerdict)}
_COUNTERS = {"events": metrics.MINED_EVENTS, "browses": metrics.BROWSES, "closed": metrics.CLOSED}


_CAUSES = {
    "no browse": "it opens no documents, or its openings do not name the trajectory of its search",
    "no search": "its searches are not published, or its openings do not name their trajectory",
}
MAX_WARNED = 100
"""Agents that are warned about, for each reason."""
_warned: dict[str, set[str]] = {reason: set() for reason in _CAUSES}


def _warn(reason: str, agent: str) -> None:
    """Warn about an agent once."""
    warned = _warned[reason]
    if agent not in warned and len(warned) < MAX_WARNED:
        warned.add(agent)
        log.warning(
            "trajectories give no pairs",
            agent=agent,
            reason=reason,
            likely_cause=_CAUSES[reason],
        )


def show(counts: Mapping[tuple[str, ...], int]) -> None:
    """Add a fold's counts to the metrics."""
    for (kind, *labels), number in counts.items():
        if kind == "gaps":
            metrics.GAPS.inc(number)
        elif kind == "incomplete":
            reason, agent = labels
            metrics.INCOMPLETE.labels(reason).inc(number)
            _warn(reason, agent)
        elif kind == "rank":
            verdict, rank = labels
            series = metrics.BROWSED_RANK.labels(verdict)
            for _ in range(number):
                series.observe(int(rank))
        else:
            _COUNTERS[kind].labels(*labels).inc(number)


def run(settings: Settings) -> None:
    """Mine until SIGTERM or SIGINT.

    Raises:
        RetrailError: see :func:`streams.loop.process.run`.
    """
    topics, erasures = Topics.of(settings), ErasureLog(settings)
    require_broker(settings, [topics.erasures])
    erasures.refresh()

    def make_task(assignment: Assignment) -> MineTask:
        return MineTask(assignment, topics, settings, erasures.current)

    stage = process.Stage(topics.judged_events, [topics.labelled_pairs], make_task, ROLE)
    process.run(settings, ROLE, [stage])
