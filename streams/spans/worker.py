"""The worker ``otlp``: otlp_spans → agent-spans → trajectory-events.

Two stages in one process. The first reduces the spans of each request, and writes them to
agent-spans under the id of their trace, and what evaluations say to outcomes; its commit point is
the oldest request of which not everything is acknowledged. The second is a fold over each partition
of agent-spans (:mod:`streams.spans.fold`), which writes the events of closed traces to the same
partition of trajectory-events; its commit point is the low watermark. While a trace is open, the
owner of its partition writes ticks to agent-spans, so that time passes.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import structlog
from aiokafka.partitioner import murmur2

from retrail_runtime.kafka import Outgoing, require_broker
from retrail_runtime.otlp import Request
from retrail_runtime.process import RateLimit
from retrail_runtime.retry import Deadline
from schemas.errors import InvalidRecordError
from schemas.events import OutcomeReport, cloudevents, parse
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES, Topics
from streams.events import encode
from streams.importing.report import Counts
from streams.importing.tools import ToolMap
from streams.loop import process
from streams.loop.checkpoint import Committed, Outbox
from streams.loop.partition import Assignment, PartitionTask, Record
from streams.spans import fold, metrics
from streams.spans.dialects import OMITTED
from streams.spans.evaluations import Outcome
from streams.spans.fold import TICK, Closed, Fold, Limits, Resume
from streams.spans.reduce import AgentSpan, reduced
from streams.spans.traces import parts_of

log = structlog.get_logger(__name__)

ROLE: Final = "otlp"
RECORD_BYTES = 512 * 1024
"""Of the spans of one trace and request in one record of agent-spans; more go into the next."""

_log_limit = RateLimit(10.0)


class ReduceTask(PartitionTask):
    """Reduces the requests of one partition of otlp_spans."""

    def __init__(
        self, assignment: Assignment, topics: Topics, counts: Mapping[str, int], *, by_trace: bool
    ) -> None:
        """``counts``: number of partitions of each output topic."""
        self._assignment, self._topics, self._counts = assignment, topics, counts
        self._by_trace = by_trace
        self._next = assignment.start.offset
        self._outboxes: dict[tuple[str, int], Outbox] = {}

    @property
    def has_capacity(self) -> bool:
        """Whether all outboxes have capacity."""
        return all(outbox.has_capacity for outbox in self._outboxes.values())

    def process(self, records: Sequence[Record], end: int) -> None:
        """Reduce the records."""
        dialects: Counter[str] = Counter()
        results: Counter[str] = Counter()
        for record in records:
            try:
                self._reduce(record, dialects)
                results["accepted"] += 1
            except InvalidRecordError as error:
                results["invalid"] += 1
                if _log_limit.allows():
                    log.warning("invalid trace request", error=str(error), offset=record.offset)
        for dialect, number in dialects.items():
            metrics.SPANS.labels(dialect).inc(number)
        for result, number in results.items():
            metrics.OTLP_REQUESTS.labels(result).inc(number)
        self._next = end

    def _reduce(self, record: Record, dialects: Counter[str]) -> None:
        request = Request.decode(record.value or b"")
        by_key: dict[str, list[AgentSpan]] = defaultdict(list)
        outcomes: list[tuple[AgentSpan, Outcome]] = []
        for trace_id, span in reduced(request.spans(OMITTED), dialects):
            key = trace_id if self._by_trace else span.conversation or trace_id
            by_key[key].append(span)
            outcomes += [(span, outcome) for outcome in span.outcomes]
        dialects["invalid"] += request.invalid
        for key, spans in by_key.items():
            for value in _values(spans):
                self._put(self._topics.agent_spans, record.offset, key, value)
        for span, outcome in outcomes:
            for report in _reports(span, outcome, by_trace=self._by_trace):
                key, value = report.trajectory_id, report.to_json()
                self._put(self._topics.outcomes, record.offset, key, value)
                metrics.OUTCOME_REPORTS.inc()

    def _put(self, topic: str, offset: int, key: str, value: bytes) -> None:
        place = topic, _partition(key, self._counts[topic])
        outbox = self._outboxes.get(place)
        if outbox is None:
            channel = self._assignment.channel(topic, partition=place[1])
            outbox = self._outboxes[place] = Outbox(channel, self._assignment.fail)
        outbox.put(offset, Outgoing(key.encode(), value), len(value))

    async def commit_point(self) -> Committed:
        """The oldest request of which not everything is acknowledged."""
        oldest = (outbox.oldest for outbox in self._outboxes.values())
        waiting = [position for position in oldest if position is not None]
        return Committed(min(waiting, default=self._next))

    async def finish(self, deadline: Deadline) -> Committed | None:
        """Stop; the next owner reduces again what is not acknowledged."""
        await asyncio.gather(*(outbox.close(deadline) for outbox in self._outboxes.values()))
        return await self.commit_point()


def _values(spans: list[AgentSpan]) -> list[bytes]:
    """Records of these spans: one if they are not too large for it."""
    value = fold.encode(spans)
    if len(value) <= RECORD_BYTES or len(spans) == 1:
        return [value]
    half = len(spans) // 2
    return _values(spans[:half]) + _values(spans[half:])


def _reports(span: AgentSpan, outcome: Outcome, *, by_trace: bool) -> list[OutcomeReport]:
    """An evaluation for each id that the trajectory may have: one of them has no trajectory."""
    names = [outcome.trace_id, f"{outcome.trace_id}-{outcome.span_id}"]
    if not by_trace and span.conversation:
        names = [span.conversation]
    moment = datetime.fromtimestamp(min(span.end, 2**62) // 10**9, UTC)
    return [
        OutcomeReport(
            trajectory_id=name,
            outcome=outcome.outcome,
            reported_at=moment,
            source=outcome.source,
        )
        for name in names
    ]


@lru_cache(maxsize=65_536)
def _partition(key: str, count: int) -> int:
    """The partition of a key, as Kafka's clients choose it."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % count


class TraceTask(PartitionTask):
    """Makes trajectories of the traces of one partition of agent-spans."""

    def __init__(
        self, assignment: Assignment, topics: Topics, limits: Limits, tools: ToolMap
    ) -> None:
        """Continues from the checkpoint of ``assignment``."""
        resume = Resume.parse(assignment.start.offset, assignment.start.metadata)
        self._partition, self._tools = assignment.partition, tools
        self._next, self._acknowledged = resume.start, resume.acknowledged
        self._fold = Fold(limits, resume.clock)
        self._events = Outbox(assignment.channel(topics.trajectory_events), assignment.fail)
        self._ticks = Outbox(assignment.channel(topics.agent_spans), assignment.fail)

    @property
    def has_capacity(self) -> bool:
        """Whether not too many events are unacknowledged."""
        return self._events.has_capacity

    @property
    def recovered(self) -> bool:
        """Whether it has read again all records whose events a former owner wrote."""
        return self._next >= self._acknowledged

    def process(self, records: Sequence[Record], end: int) -> None:
        """Apply the records, and write the events of the traces that they close."""
        for record in records:
            closed = self._fold.apply(
                record.offset,
                record.timestamp,
                record.key,
                record.value or b"",
                silent=record.offset < self._acknowledged,
            )
            for trace in closed:
                self._write(record.offset, trace)
        self._next = end
        self._count()

    def _write(self, offset: int, trace: Closed) -> None:
        reasons: Counter[str] = Counter()
        for part in parts_of(trace.key, trace.spans, self._tools, reasons, Counts()):
            metrics.TRAJECTORIES.inc()
            for event in part.events:
                value = encode(event)
                published = parse(value).event
                headers = cloudevents(published, published.type)
                output = Outgoing(event.trajectory_id.encode(), value, headers)
                if output.size > MAX_EVENT_BYTES:
                    reasons["oversize_event"] += 1
                    log.error("event is too large for its topic", event_id=event.event_id)
                    break
                self._events.put(offset, output, len(value))
                metrics.PUBLISHED_EVENTS.inc()
        for reason, number in reasons.items():
            metrics.NOT_MAPPED.labels(reason).inc(number)

    def caught_up(self, as_of: int) -> None:
        """Write a tick if a trace is open, so that time passes on the log."""
        if self._fold.open_traces and self._ticks.oldest is None:
            self._ticks.put(self._next, Outgoing(None, TICK), len(TICK))
            metrics.TRACE_TICKS.inc()

    async def commit_point(self) -> Committed:
        """The low watermark, when the events of all closed traces are acknowledged."""
        point = self._fold.resume(self._next, max(self._next, self._acknowledged))
        await self._events.acknowledged()
        return Committed(point.start, point.metadata())

    async def finish(self, deadline: Deadline) -> Committed | None:
        """Stop; a last commit point, if all events are acknowledged by the deadline."""
        point = None
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline.remaining):
                point = await self.commit_point()
        await asyncio.gather(self._events.close(Deadline(0)), self._ticks.close(deadline))
        metrics.OPEN_TRACES.labels(self._partition).set(0)
        return point

    def _count(self) -> None:
        """Move the fold's counts into the metrics."""
        for (kind, result), number in self._fold.counts.items():
            counter = metrics.TRACES if kind == "traces" else metrics.TRACE_SPANS
            counter.labels(result).inc(number)
        self._fold.counts.clear()
        metrics.OPEN_TRACES.labels(self._partition).set(self._fold.open_traces)


def run(settings: Settings) -> None:
    """Read traces until SIGTERM or SIGINT.

    Raises:
        InputError: the tool map cannot be read.
        RetrailError: see :func:`streams.loop.process.run`.
    """
    topics, limits = Topics.of(settings), Limits.of(settings)
    tools = ToolMap.load(settings.otlp_tools)
    written = [topics.agent_spans, topics.outcomes]
    counts = require_broker(settings, written)
    by_trace = settings.otlp_trajectory == "trace"

    def make_reduce_task(assignment: Assignment) -> ReduceTask:
        return ReduceTask(assignment, topics, counts, by_trace=by_trace)

    def make_trace_task(assignment: Assignment) -> TraceTask:
        return TraceTask(assignment, topics, limits, tools)

    # A new revision judges and mines the same trajectories again.
    stages = [
        process.Stage(
            topics.otlp_spans, written, make_reduce_task, ROLE, rekeys=True, revised=False
        ),
        process.Stage(
            topics.agent_spans,
            [topics.trajectory_events],
            make_trace_task,
            f"{ROLE}-traces",
            revised=False,
        ),
    ]
    process.run(settings, ROLE, stages)
