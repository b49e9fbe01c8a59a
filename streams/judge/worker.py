"""The worker ``judge``: trajectory-events → judged-events, and invalid records → the DLQ.

Stateless. Reasonings of one partition are judged concurrently, and outputs keep its order: each
record becomes an output, or a task that makes one, in a queue that is sent in order. The next event
lists the offsets before it that have none (dead letters, lost records, control markers); if none
follows in the batch, a record of its own does, so that the miner can detect missing records. The
commit point is the oldest offset whose output is not acknowledged. While a judging server is down
its tasks wait, the queue fills up, and the partition lags.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, get_args

import structlog

from retrail_runtime.kafka import Outgoing
from retrail_runtime.metrics import at_zero
from retrail_runtime.retry import Deadline
from schemas.base import DeadLetter
from schemas.errors import InvalidRecordError
from schemas.events import Verdict
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES, Topics
from streams.events import (
    ABSENT,
    Event,
    Judgement,
    Reasoning,
    Skipped,
    Tick,
    encode,
    read_published,
)
from streams.judge import metrics
from streams.judge.judgement import (
    AGENT,
    NO_JUDGE,
    Judge,
    judge_named,
    judged,
    located,
    question,
)
from streams.loop import process
from streams.loop.checkpoint import Committed, Outbox
from streams.loop.partition import Assignment, PartitionTask, Record
from streams.metrics import BoundedLabel

log = structlog.get_logger(__name__)

ROLE: Final = "judge"
MAX_UNACKNOWLEDGED = 4_000
MAX_OUTPUT_BYTES = MAX_EVENT_BYTES + ADDED_BYTES
MAX_MESSAGE = 2_000
"""Characters of an error's message in a dead letter's headers."""

_agent_models = BoundedLabel()


class JudgeTask(PartitionTask):
    """Judges one partition of trajectory-events."""

    def __init__(
        self, assignment: Assignment, topics: Topics, judge: Judge | None, silence_ms: int
    ) -> None:
        """Judge nothing yet.

        Args:
            judge: shared by all partitions of a worker; ``None`` for the judge ``none``.
            silence_ms: after this time without a record no trajectory is open.
        """
        self._judge = judge
        self._topic, self._partition = topics.trajectory_events, assignment.partition
        self._log_id = assignment.log_id
        self._next = assignment.start.offset
        # Before an offset that no judge committed there may be any records.
        self._covered = self._next if assignment.start.log_id == self._log_id else 0
        self._silence_ms = silence_ms
        self._last_at: int | None = None
        self._silent = False
        self._accepted: Counter[str] = Counter()
        self._judged = Outbox(
            assignment.channel(topics.judged_events),
            assignment.fail,
            max_records=MAX_UNACKNOWLEDGED,
        )
        self._dead = Outbox(assignment.channel(topics.trajectory_events_dlq), assignment.fail)

    @property
    def has_capacity(self) -> bool:
        """Whether both outboxes have capacity."""
        return self._judged.has_capacity and self._dead.has_capacity

    def process(self, records: Sequence[Record], end: int) -> None:
        """Judge the records, or start to."""
        for record in records:
            weight = len(record.value or b"")
            try:
                self._judged.put(self._covered, self._output(record), weight)
                self._covered = record.offset + 1
            except InvalidRecordError as error:
                self._dead.put(record.offset, self._dead_letter(record, error), weight)
        if records:
            self._last_at, self._silent = records[-1].timestamp, False
        self._next = end
        self._name_skipped()
        for event_type, number in self._accepted.items():
            metrics.EVENTS.labels(event_type, "accepted").inc(number)
        self._accepted.clear()

    def _name_skipped(self) -> None:
        """Write a record of its own for the offsets after the last judged event."""
        if self._covered < self._next:
            last = self._next - 1
            skipped = Skipped(self._log_id, self._partition, last, self._covered)
            output = Outgoing(None, encode(skipped))
            self._judged.put(self._covered, output, output.size)
            self._covered = self._next

    def _output(self, record: Record) -> Outgoing | asyncio.Future[Outgoing]:
        event, unknown_fields = self._read(record)
        judge, text = self._judge, question(event)
        skipped_from = self._covered if self._covered < record.offset else ABSENT
        located(event, self._log_id, self._partition, record.offset, record.timestamp, skipped_from)
        output: Outgoing | asyncio.Future[Outgoing]
        if judge is None or text is None:
            output = self._write(event, None, record)
        elif (answer := judge.verdict(text)) is not None:
            output = self._write(event, answer, record)
        else:
            output = asyncio.create_task(self._ask(judge, event, text, record))
        if isinstance(output, Outgoing) and output.size > MAX_OUTPUT_BYTES:
            size = len(output.value or b"")
            raise InvalidRecordError(f"the judged event has {size} bytes", reason="too_large")
        self._accepted[type(event).__name__.lower()] += 1
        if unknown_fields:
            metrics.UNKNOWN_FIELDS.inc(unknown_fields)
        return output

    def _read(self, record: Record) -> tuple[Event, int]:
        """The record's event; its key must be the trajectory's id, which keeps the order."""
        if record.value is None:
            raise InvalidRecordError("the record has no value", reason="malformed_json")
        event, unknown_fields = read_published(record.value)
        if record.key != event.trajectory_id.encode():
            raise InvalidRecordError(
                f"key {record.key!r} is not the trajectory_id", reason="wrong_key"
            )
        return event, unknown_fields

    async def _ask(self, judge: Judge, event: Event, text: str, record: Record) -> Outgoing:
        return self._write(event, await judge.judge(text), record)

    def _write(self, event: Event, answer: Verdict | None, record: Record) -> Outgoing:
        judged(event, self._judge, answer)
        if isinstance(event, Judgement) and event.verdict:
            metrics.VERDICTS.labels(event.verdict, event.judge).inc()
            if event.verdict == "unknown" and answer is None:
                metrics.UNKNOWN.labels("empty").inc()
        if isinstance(event, Reasoning) and event.tokens is not None:
            model = _agent_models.of(event.agent.model)
            metrics.REASONING_TOKENS.labels(model).observe(event.tokens)
        return Outgoing(record.key, encode(event))

    def _dead_letter(self, record: Record, error: InvalidRecordError) -> Outgoing:
        """The record unchanged, with the reason in its headers.

        The value of one that is too large for the DLQ is left out; the headers have its offset.
        """
        metrics.EVENTS.labels("invalid", "dead_lettered").inc()
        metrics.DEAD_LETTERS.labels(error.reason).inc()
        place: Any = {"topic": self._topic, "partition": self._partition, "offset": record.offset}
        log.warning("record dead-lettered", reason=error.reason, message=str(error)[:200], **place)
        letter = DeadLetter(
            **place,
            stage=ROLE,
            reason=error.reason,
            exception=type(error.__cause__ or error).__name__,
            message=str(error)[:MAX_MESSAGE],
        )
        whole = Outgoing(record.key, record.value, letter.headers(record.headers))
        if record.key is None and record.value is None:
            return whole._replace(value=b"")
        if whole.size <= MAX_OUTPUT_BYTES:
            return whole
        return Outgoing(record.key, b"", letter.headers())

    async def commit_point(self) -> Committed:
        """The oldest record whose output is not acknowledged; never waits for the judge."""
        return Committed(min(self._unacknowledged(), default=self._next))

    def _unacknowledged(self) -> list[int]:
        oldest = (self._judged.oldest, self._dead.oldest)
        return [position for position in oldest if position is not None]

    def caught_up(self, as_of: int) -> None:
        """Write a tick if everything is acknowledged too, so that time passes on the log.

        The tick after which no trajectory is open is the last one until the next record.
        """
        if self._silent or self._unacknowledged():
            return
        tick = encode(Tick(as_of=as_of))
        self._judged.put(self._next, Outgoing(None, tick), len(tick))
        metrics.TICKS.inc()
        if self._last_at is None:
            self._last_at = as_of
        self._silent = as_of - self._last_at >= self._silence_ms

    async def finish(self, deadline: Deadline) -> Committed | None:
        """Stop; the next owner judges what is not judged yet."""
        await asyncio.gather(self._judged.close(deadline), self._dead.close(deadline))
        return await self.commit_point()


def run(settings: Settings) -> None:
    """Judge until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the judge lacks a setting.
        RetrailError: see :func:`streams.loop.process.run`.
    """
    topics, judge = Topics.of(settings), judge_named(settings)
    written = [topics.judged_events, topics.trajectory_events_dlq]
    silence = settings.mine_gap_seconds + settings.mine_idle_seconds + settings.mine_max_age_seconds
    name = judge.name if judge else NO_JUDGE
    at_zero(metrics.VERDICTS, get_args(Verdict), (AGENT, name))
    at_zero(metrics.JUDGE_SECONDS, [name])

    def make_task(assignment: Assignment) -> JudgeTask:
        return JudgeTask(assignment, topics, judge, int(1000 * silence))

    at_end = judge.aclose if judge else None
    stage = process.Stage(topics.trajectory_events, written, make_task, ROLE)
    process.run(settings, ROLE, [stage], at_end)
