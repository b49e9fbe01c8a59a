"""The loop that judge and miner share: consume, process, acknowledge, commit.

A worker is a Faust app over one topic (:mod:`streams.loop.faust_app`) and a task for each partition
that it owns. The task is the worker's own part (:class:`streams.loop.tasks.PartitionTask`);
:class:`streams.loop.checkpoint.Checkpoint` has the steps of a commit, and what a crash between them
means.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import structlog
from aiokafka.errors import KafkaError

from retrail_runtime.metrics import LAG_RECORDS, Health
from schemas.errors import BrokerUnavailableError, RestartRequiredError, TopicMismatchError
from streams import metrics
from streams.loop import health
from streams.loop.checkpoint import Checkpoint, Deadline
from streams.loop.faust_app import BatchApp
from streams.loop.health import Observation, PartitionState, State
from streams.loop.records import Chunk, Committed, Continuity, End, Hole, Record, chunks
from streams.loop.tasks import Assignment, MakeTask, Slot

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
"""Between two looks at the ends of the partitions."""

CHUNK = 500
"""Records between two turns of the event loop, so that acknowledgements get through."""

IDENTIFY_SECONDS = 5.0
"""Between two questions for the topic's id."""

CUT = "."
"""Between a topic's id and the suffix of a log that was cut: no id of Kafka's has one."""

ANSWER_SECONDS = 10.0
"""After which the worker logs that it waits for the broker."""

HAND_OVER_SECONDS = 8.0
"""For acknowledgements and the last commit, below Faust's rebalance timeout of at least 10 s."""

COMMIT_SECONDS = 2.0
"""Of these, what is left to the commit."""


class Worker:
    """Runs partition tasks over one source topic; a :class:`streams.loop.records.Handler`."""

    def __init__(self, source: str, make_task: MakeTask) -> None:
        """Must be created within the running loop.

        Args:
            source: topic to read.
            make_task: makes the worker's own part for a partition.
        """
        self.source = source
        self.app: BatchApp
        self.checkpoint = Checkpoint(lambda offsets: self.app.commit_offsets(offsets))
        self._make_task = make_task
        self._slots: dict[int, Slot] = {}
        self._joined = self._topic_missing = False
        self._topic_id = ""
        self._observation = Observation(time.monotonic())
        self._answered_at = time.monotonic()
        self._epoch = 0
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def fail(self, failure: BaseException) -> None:
        """End the worker with exit status 75, after a last checkpoint of what is certain."""
        if not self.failure.done():
            self.failure.set_result(failure)
            self._observation = replace(self._observation, shutting_down=True)

    def health(self) -> Health:
        """Whether it lives and is ready; may be asked from any thread."""
        return health.state_of(self._observation, time.monotonic()).value

    @property
    def observed_at(self) -> float:
        """When it last looked at itself, on the monotonic clock; may be asked from any thread."""
        return self._observation.at

    # -- what Faust asks -----------------------------------------------------------------------

    def positions(self) -> Mapping[int, int]:
        """Partition → offset of the record to deliver next."""
        return {partition: slot.guard.next for partition, slot in self._slots.items()}

    def with_capacity(self) -> frozenset[int]:
        """Partitions whose task takes more records now."""
        return frozenset(p for p, slot in self._slots.items() if slot.task.has_capacity)

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Start a task for each partition, from its last checkpoint or its beginning."""
        epoch, self._joined = self._epoch, True
        if partitions:
            await self._identify(epoch)
        committed = await self.app.committed(partitions) if partitions else {}
        start = await self._starts(committed)
        if epoch != self._epoch:
            return
        self._slots = {p: self._slot(p, found) for p, found in start.items()}
        self._observe()
        metrics.ASSIGNED.labels(self.source).set(len(self._slots))
        log.info("partitions assigned", starts={p: found.offset for p, found in start.items()})

    async def _starts(self, committed: Mapping[int, Committed]) -> dict[int, Committed]:
        """What the group committed for this log; else its beginning."""
        fresh = frozenset(
            partition
            for partition, found in committed.items()
            if found.offset < 0 or (found.log_id and not self._is_ours(found.log_id))
        )
        beginnings = await self.app.beginnings(fresh) if fresh else {}
        return {**committed, **{p: Committed(offset) for p, offset in beginnings.items()}}

    def _is_ours(self, log_id: str) -> bool:
        return log_id.partition(CUT)[0] == self._topic_id

    async def revoked(self) -> None:
        """Drop all state, after a last checkpoint; one deadline bounds all of its waits."""
        deadline = Deadline(HAND_OVER_SECONDS)
        self._epoch += 1
        slots, self._slots = self._slots, {}
        self._observe()
        metrics.ASSIGNED.labels(self.source).set(0)
        if not slots:
            return
        outputs = deadline.earlier(COMMIT_SECONDS)
        points = await asyncio.gather(*(slot.task.finish(outputs) for slot in slots.values()))
        for partition, point in zip(slots, points, strict=True):
            if point is not None:
                self.checkpoint.store(partition, replace(point, log_id=slots[partition].log_id))
        await self.checkpoint.commit(deadline)
        self.checkpoint.clear()
        for partition in slots:
            LAG_RECORDS.labels(self.source, partition).set(0)
            metrics.LAG_SECONDS.labels(self.source, partition).set(0)
            metrics.OPEN_TRANSACTION.labels(self.source, partition).set(0)

    async def deliver(self, partition: int, fetched: Sequence[Record | Hole]) -> None:
        """Give what was fetched to its task, in chunks, as far as its offsets are continuous."""
        slot = self._slots.get(partition)
        for chunk in chunks(fetched, CHUNK):
            if slot is None or not await self._accepts(partition, slot, chunk):
                return
            slot.task.process(chunk.records, chunk.end)
            slot.guard.next, slot.moved_at = chunk.end, time.monotonic()
            if chunk.records:
                slot.last_timestamp = chunk.records[-1].timestamp
            self.checkpoint.processed(len(chunk.records))
            await asyncio.sleep(0)
            if self._slots.get(partition) is not slot:
                return

    async def _accepts(self, partition: int, slot: Slot, chunk: Chunk) -> bool:
        """Whether reading continues with this chunk; else it goes back, or ends."""
        wanted, finding = slot.guard.next, slot.guard.check(chunk.start)
        place = {"topic": self.source, "partition": partition}
        if finding != "continuous":
            metrics.DISCONTINUITIES.labels(self.source, finding).inc()
            log.warning(
                "offsets are not continuous", kind=finding, wanted=wanted, got=chunk.start, **place
            )
        if finding == "gap":
            slot.task.hole()
        if finding == "reset":
            await self._identify_again()
            if self._slots.get(partition) is not slot:
                return False
            await slot.task.finish(Deadline(HAND_OVER_SECONDS))
            # Offsets that were judged before come again with other records: another log.
            cut = f"{self._topic_id}{CUT}{int(time.time())}"
            self._slots[partition] = self._slot(partition, Committed(chunk.start), cut)
        if finding in ("refetched", "reset"):
            await self.app.seek(partition, self._slots[partition].guard.next)
            return False
        if chunk.fault:
            await self._pass_over(partition, slot, chunk)
        return not chunk.fault

    async def _pass_over(self, partition: int, slot: Slot, chunk: Chunk) -> None:
        """Read on behind what cannot be decoded if an operator wants that; else end."""
        skipped = await self.app.skipped(partition)
        if not any(chunk.start <= offset < chunk.end for offset in skipped):
            self.fail(_undecodable(self.source, partition, chunk))
            return
        # A broken header may name an end that is behind the log's.
        ends = await self.app.ends(frozenset([partition]))
        end = max(chunk.start + 1, min(chunk.end, ends[partition].stable))
        if self._slots.get(partition) is not slot:
            return
        metrics.DISCONTINUITIES.labels(self.source, "skipped").inc()
        log.error(
            "an operator passes over what cannot be decoded",
            topic=self.source,
            partition=partition,
            offsets=f"{chunk.start}..{end - 1}",
            fault=chunk.fault,
        )
        slot.task.hole()
        slot.task.process((), end)
        slot.guard.next, slot.moved_at = end, time.monotonic()
        await self.app.seek(partition, end)

    def _slot(self, partition: int, start: Committed, log_id: str = "") -> Slot:
        log_id = log_id or start.log_id or self._topic_id
        self.checkpoint.start({partition: start})
        channel = partial(self.app.output, partition=partition)
        task = self._make_task(Assignment(partition, log_id, start, channel, self.fail))
        return Slot(task, Continuity(start.offset), log_id)

    # -- which log is it? ----------------------------------------------------------------------

    async def keep_identifying(self) -> None:
        """Every few seconds: whether the source is still the topic that it was."""
        while True:
            await asyncio.sleep(IDENTIFY_SECONDS)
            await self._identify_again()

    async def _identify(self, epoch: int) -> None:
        """Learn the topic's id, however long the broker takes, while the assignment lasts."""
        while epoch == self._epoch:
            try:
                self._topic_id = await self.app.topic_id()
            except (BrokerUnavailableError, TopicMismatchError) as error:
                log.warning("waiting for the topic", error=str(error))
                await asyncio.sleep(WATCH_SECONDS)
            else:
                return

    async def _identify_again(self) -> None:
        """Start at the beginning of another topic of that name; drop what came of the old one."""
        epoch = self._epoch
        try:
            found = await self.app.topic_id()
        except BrokerUnavailableError:
            # The loop that reads the end offsets logs that.
            return
        except TopicMismatchError as error:
            if not self._topic_missing:
                log.error("waiting for the topic", error=str(error))
            self._topic_missing = True
            return
        self._topic_missing = False
        if not self._slots or found == self._topic_id or epoch != self._epoch:
            return
        log.error("the topic was created again; reading it from its beginning", topic=self.source)
        metrics.DISCONTINUITIES.labels(self.source, "recreated").inc()
        self._topic_id = found
        slots, self._slots = self._slots, {}
        outputs = Deadline(HAND_OVER_SECONDS)
        await asyncio.gather(*(slot.task.finish(outputs) for slot in slots.values()))
        starts = await self._starts(dict.fromkeys(slots, Committed(-1)))
        if epoch != self._epoch:
            return
        self._slots = {partition: self._slot(partition, at) for partition, at in starts.items()}
        for partition, at in starts.items():
            await self.app.seek(partition, at.offset)

    # -- checkpoints and watching --------------------------------------------------------------

    async def keep_checkpointing(self) -> None:
        """A checkpoint every second, sooner under load."""
        while True:
            await self.checkpoint.expired()
            await self._acknowledge(dict(self._slots))
            await self.checkpoint.commit(Deadline(ANSWER_SECONDS))

    async def _acknowledge(self, slots: Mapping[int, Slot]) -> None:
        """Steps 1 and 2 of a checkpoint, for the partitions that reach them in time."""
        if not slots:
            return
        waiting = {p: asyncio.create_task(slot.task.commit_point()) for p, slot in slots.items()}
        done, late = await asyncio.wait(waiting.values(), timeout=ANSWER_SECONDS)
        for task in late:
            task.cancel()
        if late:
            metrics.CHECKPOINTS.labels("waiting").inc()
            log.warning("outputs are not acknowledged yet", seconds=ANSWER_SECONDS)
        for partition, task in waiting.items():
            slot = slots[partition]
            if task in done and self._slots.get(partition) is slot:
                self.checkpoint.store(partition, replace(task.result(), log_id=slot.log_id))

    async def keep_watching(self) -> None:
        """Every second: lag, ticks of tasks that caught up, and whether records still come."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            slots, as_of = dict(self._slots), int(time.time() * 1000)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    ends = await self._look(frozenset(slots))
            except (TimeoutError, KafkaError) as error:
                if await self._consumer_answers():
                    log.warning("the broker does not answer; waiting", error=repr(error))
                    for slot in slots.values():
                        slot.moved_at = time.monotonic()
            else:
                self._answered_at = time.monotonic()
                for partition, slot in slots.items():
                    if self._slots.get(partition) is slot:
                        self._watch(partition, slot, ends[partition], as_of)
            self._observe()

    async def _look(self, partitions: frozenset[int]) -> Mapping[int, End]:
        """The ends of the partitions; without any, whether the consumer's thread answers."""
        if partitions:
            return await self.app.ends(partitions)
        if self._joined:
            await self.app.consumer_answers()
        return {}

    async def _consumer_answers(self) -> bool:
        """Whether the consumer's thread still works, so that it is the broker who is silent."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.app.consumer_answers()
        except TimeoutError:
            log.warning("the thread that reads from the broker does not answer")
            return False
        self._answered_at = time.monotonic()
        return True

    def _watch(self, partition: int, slot: Slot, end: End, as_of: int) -> None:
        now = time.monotonic()
        slot.lag = lag = max(0, end.stable - slot.guard.next)
        behind = time.time() - slot.last_timestamp / 1000 if lag and slot.last_timestamp else 0.0
        if end.stable != slot.stable or end.stable >= end.high:
            slot.stable, slot.stable_at = end.stable, now
        metrics.OPEN_TRANSACTION.labels(self.source, partition).set(now - slot.stable_at)
        LAG_RECORDS.labels(self.source, partition).set(lag)
        metrics.LAG_SECONDS.labels(self.source, partition).set(max(0.0, behind))
        if not lag:
            slot.task.caught_up(as_of)
        if not lag or not slot.task.has_capacity:
            slot.moved_at = now

    def _observe(self) -> None:
        """Note how the partitions are, for :meth:`health`; fail where only a restart helps."""
        now = time.monotonic()
        states = {
            partition: PartitionState(
                slot.lag, now - slot.moved_at, slot.task.recovered, slot.task.refusing
            )
            for partition, slot in self._slots.items()
        }
        self._observation = Observation(
            now,
            states,
            topic_missing=self._topic_missing,
            consumer_silent=now - self._answered_at,
            shutting_down=self.failure.done(),
        )
        if health.state_of(self._observation, now) is State.CONSUMER_UNRESPONSIVE:
            seconds = self._observation.consumer_silent
            self.fail(
                RestartRequiredError(
                    f"Faust's consumer thread has not answered for {seconds:.0f} s."
                )
            )
        for partition, state in health.stalled(self._observation).items():
            self.fail(
                RestartRequiredError(
                    f"No record of {self.source}/{partition} came for {state.unmoved:.0f} s, "
                    f"although {state.lag} are there."
                )
            )


def _undecodable(topic: str, partition: int, chunk: Chunk) -> RestartRequiredError:
    return RestartRequiredError(
        f"{topic}/{partition} cannot be decoded from offset {chunk.start} on: {chunk.fault}. "
        f"Offsets {chunk.start} to {chunk.end - 1} are affected. Restore the partition's log from "
        "another replica or a copy, or pass over these records with `retrail dlq skip "
        f"{topic} {partition} {chunk.start}`.",
        topic=topic,
        partition=partition,
    )
