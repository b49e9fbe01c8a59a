"""The worker ``judge``: trajectory-events → judged-events, and what is no event → the DLQ.

Stateless. A partition's order is kept, while all its reasonings are judged at once: each record
becomes an output, or the promise of one, in a queue that is sent in order. The commit point is the
oldest record whose output is not acknowledged. While a judging server is down its promises wait,
the queue fills up, and the partition lags.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from retrail_runtime.kafka import require_broker
from schemas.events import Parsed, Reasoning, Verdict
from schemas.judged import JudgedReasoning, Tick
from schemas.settings import Settings
from schemas.topics import Topics
from streams import metrics
from streams.judge.dead_letters import Rejected, dead_letter, fits, read
from streams.judge.judging import (
    Judge,
    answer_at_once,
    judge_named,
    judged,
    judged_json,
    judgement,
    question,
    with_source,
)
from streams.judge.whole_search import trajectory_of
from streams.labels import BoundedLabel
from streams.loop import life
from streams.loop.faust_batches import BatchApp
from streams.loop.outbox import Channel, Outbox, Output
from streams.loop.source import Committed, Record

log = structlog.get_logger(__name__)

ROLE = "judge"
ROOM_RECORDS = 4_000

_agent_models = BoundedLabel()


class JudgeTask:
    """Judges one partition of trajectory-events."""

    def __init__(
        self,
        judge: Judge,
        source: tuple[str, int],
        start: Committed,
        judged_events: Channel,
        dead_letters: Channel,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Goes on from ``start``.

        Args:
            judge: shared by all partitions of the worker.
            source: topic and partition that is read.
            start: where.
            judged_events: the same partition of judged-events.
            dead_letters: and of the DLQ.
            on_failure: what to call when a send failed for good.
        """
        self._judge = judge
        self._judge_seconds = metrics.JUDGE_SECONDS.labels(judge.name)
        self._source = source
        self._next = start.offset
        self._accepted: Counter[str] = Counter()
        self._judged = Outbox(judged_events, on_failure, room_records=ROOM_RECORDS)
        self._dead = Outbox(dead_letters, on_failure)

    @property
    def room(self) -> bool:
        """Whether not too much waits for the judge or for acknowledgement."""
        return self._judged.room and self._dead.room

    @property
    def recovered(self) -> bool:
        """There is no state to read again."""
        return True

    def process(self, records: Sequence[Record]) -> None:
        """Judge the records, or begin to."""
        for record in records:
            try:
                output = self._judged_output(record)
                weight = len(record.value or b"")
                self._judged.put(record.offset, output, weight)
            except Rejected as error:
                self._set_aside(record, error)
            self._next = record.offset + 1
        for event_type, number in self._accepted.items():
            metrics.EVENTS.labels(event_type, "accepted").inc(number)
        self._accepted.clear()

    def _judged_output(self, record: Record) -> Output | asyncio.Future[Output]:
        return self._whole_search(record) or self._read_and_judged(record)

    def _whole_search(self, record: Record) -> Output | None:
        """The quick way of a search event with which all is well."""
        trajectory_id, value = trajectory_of(record.value), record.value
        if trajectory_id is None or value is None or record.key != trajectory_id.encode():
            return None
        output = Output(record.key, with_source(value, record.offset, record.timestamp))
        if not fits(output):
            return None
        self._accepted["search"] += 1
        return output

    def _read_and_judged(self, record: Record) -> Output | asyncio.Future[Output]:
        parsed = read(record)
        event = parsed.event
        if parsed.unknown_fields:
            metrics.UNKNOWN_FIELDS.inc(parsed.unknown_fields)
        text = question(event, self._judge)
        began = time.perf_counter()
        answer = None if text is None else answer_at_once(self._judge, text)
        if text is not None and answer is None:
            output: Output | asyncio.Future[Output] = asyncio.create_task(
                self._ask(parsed, text, record)
            )
        else:
            if answer is not None:
                self._judge_seconds.observe(time.perf_counter() - began)
            output = self._write(parsed, answer, record)
            if not fits(output):
                raise Rejected(
                    "too_large", f"the judged event has {len(output.value or b'')} bytes"
                )
        self._accepted[event.type] += 1
        return output

    async def _ask(self, parsed: Parsed, text: str, record: Record) -> Output:
        began = time.perf_counter()
        answer = await self._judge.judge(text)
        self._judge_seconds.observe(time.perf_counter() - began)
        return self._write(parsed, answer, record)

    def _write(self, parsed: Parsed, answer: Verdict | None, record: Record) -> Output:
        event = parsed.event
        found = judgement(event, self._judge, answer)
        if found.verdict is not None:
            metrics.VERDICTS.labels(found.verdict, found.judge).inc()
        if not isinstance(event, Reasoning):
            value = record.value or b""
            return Output(
                record.key, judged_json(parsed, value, record.offset, record.timestamp, found)
            )
        written = judged(event, record.offset, record.timestamp, found)
        if isinstance(written, JudgedReasoning) and written.tokens is not None:
            model = _agent_models.of(event.agent.model)
            metrics.REASONING_TOKENS.labels(model).observe(written.tokens)
        return Output(record.key, written.to_json())

    def _set_aside(self, record: Record, error: Rejected) -> None:
        metrics.EVENTS.labels("invalid", "dead_lettered").inc()
        metrics.DEAD_LETTERS.labels(error.reason).inc()
        topic, partition = self._source
        log.warning(
            "record set aside",
            reason=error.reason,
            topic=topic,
            partition=partition,
            offset=record.offset,
            message=str(error)[:200],
        )
        letter = dead_letter(record, topic, partition, error)
        self._dead.put(record.offset, letter, len(record.value or b""))

    async def commit_point(self) -> Committed:
        """The oldest record whose output is not acknowledged; never waits for the judge."""
        return Committed(min(self._unacknowledged(), default=self._next))

    def _unacknowledged(self) -> list[int]:
        oldest = (self._judged.oldest, self._dead.oldest)
        return [position for position in oldest if position is not None]

    def caught_up(self, as_of: int) -> None:
        """All is read; if all is acknowledged too, say on the log that time has passed."""
        if not self._unacknowledged():
            tick = Tick(as_of=as_of).to_json()
            self._judged.put(self._next, Output(None, tick), len(tick))
            metrics.TICKS.inc()

    async def finish(self, patience: float) -> Committed | None:
        """Stop; what is not judged yet is left to the next owner."""
        await asyncio.gather(self._judged.close(patience), self._dead.close(patience))
        return await self.commit_point()


def run(settings: Settings) -> None:
    """Judge until SIGTERM or SIGINT.

    Raises:
        BrokerUnavailableError: Kafka does not answer at start.
        TopicMismatchError: a topic is missing.
        ConfigurationError: the judge lacks a setting.
        RestartRequiredError: a restart is the remedy.
    """
    topics = Topics.of(settings)
    judge = judge_named(settings)
    source, output, dead = (
        topics.trajectory_events,
        topics.judged_events,
        topics.trajectory_events_dlq,
    )
    require_broker(settings, [source, output, dead], keyed_alike=True)

    def make_task(
        app: BatchApp, partition: int, start: Committed, on_failure: Callable[[BaseException], None]
    ) -> JudgeTask:
        return JudgeTask(
            judge,
            (source, partition),
            start,
            app.output(output, partition),
            app.output(dead, partition),
            on_failure,
        )

    life.run(settings, ROLE, source, make_task, judge.aclose)
