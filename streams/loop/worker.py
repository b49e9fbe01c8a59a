"""The loop that judge and miner share: consume, process, acknowledge, commit.

A worker is a Faust app over one topic (:mod:`streams.loop.faust_app`) and a task for each partition
that it owns (:class:`streams.loop.partition.PartitionTask`), which judge and miner implement.
:class:`streams.loop.checkpoint.Checkpoint` documents the steps of a commit, and what a crash
between them means.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import structlog
from aiokafka.errors import KafkaError

from retrail_runtime.health import State
from retrail_runtime.metrics import DEPENDENCY_UP, LAG_RECORDS
from retrail_runtime.retry import Deadline
from schemas.errors import BrokerUnavailableError, RestartRequiredError, TopicMismatchError
from streams import metrics
from streams.loop.checkpoint import Checkpoint, Committed
from streams.loop.faust_app import BatchApp
from streams.loop.health import Observation, PartitionState, stalled, state_of
from streams.loop.partition import (
    Assignment,
    Chunk,
    Continuity,
    End,
    Hole,
    MakeTask,
    Record,
    Slot,
    chunks,
)

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
"""Between two readings of the partitions' ends."""

CHUNK = 500
"""Records between two turns of the event loop, in which acknowledgements are handled."""

IDENTIFY_SECONDS = 5.0
"""Between two requests for the topic's id."""

CUT = "."
"""Separates a topic's id from the suffix of a log that was cut; Kafka's ids never contain it."""

ANSWER_SECONDS = 10.0
"""After which the worker logs that it waits for the broker."""

HAND_OVER_SECONDS = 8.0
"""For acknowledgements and the last commit; below Faust's rebalance timeout of at least 10 s."""

COMMIT_SECONDS = 2.0
"""The part of :data:`HAND_OVER_SECONDS` that is reserved for the commit."""


class Worker:
    """Runs partition tasks over one source topic; a :class:`streams.loop.partition.Handler`."""

    def __init__(self, source: str, make_task: MakeTask, partitions: int) -> None:
        """Must be created within the running loop.

        Args:
            source: topic to read.
            make_task: makes the task of a partition.
            partitions: their number, which must not change.
        """
        self.source = source
        self._partitions = partitions
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
        """End the worker with this failure, after a last checkpoint."""
        if not self.failure.done():
            self.failure.set_result(failure)
            self._observation = replace(self._observation, shutting_down=True)

    def health(self) -> State:
        """Its state; may be called from any thread."""
        return state_of(self._observation, time.monotonic())

    @property
    def observed_at(self) -> float:
        """Time of the last observation, on the monotonic clock; may be read from any thread."""
        return self._observation.at

    # -- called by Faust -----------------------------------------------------------------------

    def positions(self) -> Mapping[int, int]:
        """Partition → offset of the record to deliver next."""
        return {partition: slot.guard.next for partition, slot in self._slots.items()}

    def with_capacity(self) -> frozenset[int]:
        """Partitions whose task takes more records now."""
        return frozenset(p for p, slot in self._slots.items() if slot.task.has_capacity)

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Start a task for each partition, from its last checkpoint or its beginning."""
        epoch, self._joined = self._epoch, True
        if any(partition >= self._partitions for partition in partitions):
            message = (
                f"{self.source} had {self._partitions} partitions when this worker started and has "
                "more now, so a trajectory may be on two of them. Create topics with a new "
                "RETRAIL_TOPIC_PREFIX and publish there."
            )
            self.fail(TopicMismatchError(message, topic=self.source))
            return
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
            # With a suffix after the topic's id if the log was cut.
            if found.offset < 0 or found.log_id.partition(CUT)[0] not in ("", self._topic_id)
        )
        beginnings = await self.app.beginnings(fresh) if fresh else {}
        return {**committed, **{p: Committed(offset) for p, offset in beginnings.items()}}

    async def revoked(self) -> None:
        """Drop all state, after a last checkpoint; one deadline bounds all of its waits."""
        deadline = Deadline(HAND_OVER_SECONDS)
        outputs = Deadline(HAND_OVER_SECONDS - COMMIT_SECONDS)
        self._epoch += 1
        slots, self._slots = self._slots, {}
        self._observe()
        metrics.ASSIGNED.labels(self.source).set(0)
        if not slots:
            return
        points = await asyncio.gather(*(slot.task.finish(outputs) for slot in slots.values()))
        for partition, point in zip(slots, points, strict=True):
            if point is not None:
                self.checkpoint.store(partition, replace(point, log_id=slots[partition].log_id))
        await self.checkpoint.commit(deadline)
        self.checkpoint.clear()
        for partition in slots:
            for gauge in (LAG_RECORDS, metrics.LAG_SECONDS, metrics.OPEN_TRANSACTION):
                gauge.labels(self.source, partition).set(0)

    async def deliver(self, partition: int, fetched: Sequence[Record | Hole]) -> None:
        """Pass what was fetched to its task, in chunks, as long as the offsets are continuous."""
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
        """Whether the chunk is next; if not, seek, or end the worker."""
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
            # Offsets that were processed before hold other records now: another log.
            cut = f"{self._topic_id}{CUT}{int(time.time())}"
            self._slots[partition] = self._slot(partition, Committed(chunk.start), cut)
        if finding in ("refetched", "reset"):
            await self.app.seek(partition, self._slots[partition].guard.next)
            return False
        if chunk.fault:
            await self._pass_over(partition, slot, chunk)
        return not chunk.fault

    async def _pass_over(self, partition: int, slot: Slot, chunk: Chunk) -> None:
        """Skip what cannot be decoded if an operator chose that; else end the worker."""
        skipped = await self.app.skipped(partition)
        if not any(chunk.start <= offset < chunk.end for offset in skipped):
            self.fail(_undecodable(self.source, partition, chunk))
            return
        # The end in a broken header may be after the log's.
        ends = await self.app.ends(frozenset([partition]))
        end = max(chunk.start + 1, min(chunk.end, ends[partition].stable))
        if self._slots.get(partition) is not slot:
            return
        metrics.DISCONTINUITIES.labels(self.source, "skipped").inc()
        log.error(
            "skipping undecodable records",
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

    # -- the topic's id ------------------------------------------------------------------------

    async def keep_identifying(self) -> None:
        """Every few seconds: check that the source is still the same topic."""
        while True:
            await asyncio.sleep(IDENTIFY_SECONDS)
            await self._identify_again()

    async def _identify(self, epoch: int) -> None:
        """Get the topic's id; retry without a limit while the assignment lasts."""
        while epoch == self._epoch:
            if found := await self._read_topic_id():
                self._topic_id = found
                return
            log.warning("waiting for the topic's id", topic=self.source)
            await asyncio.sleep(WATCH_SECONDS)

    async def _identify_again(self) -> None:
        """Start at the beginning if the name is another topic's now; drop the old one's tasks."""
        epoch, found = self._epoch, await self._read_topic_id()
        if not found or not self._slots or found == self._topic_id or epoch != self._epoch:
            return
        log.error("topic was recreated; reading it from the beginning", topic=self.source)
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

    async def _read_topic_id(self) -> str | None:
        """The id of the source topic; ``None`` if it is missing or the broker does not answer."""
        try:
            found = await self.app.topic_id()
        except BrokerUnavailableError:
            # keep_watching logs that.
            return None
        except TopicMismatchError as error:
            if not self._topic_missing:
                log.error("waiting for the topic", error=str(error))
            self._topic_missing = True
            return None
        self._topic_missing = False
        return found

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
            log.warning("outputs are not acknowledged yet; no commit", seconds=ANSWER_SECONDS)
        for partition, task in waiting.items():
            slot = slots[partition]
            if task in done and self._slots.get(partition) is slot:
                self.checkpoint.store(partition, replace(task.result(), log_id=slot.log_id))

    async def keep_watching(self) -> None:
        """Every second: lag, ticks of tasks that caught up, and whether records still arrive."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if await self._consumer_answers():
                await self._look(dict(self._slots), int(time.time() * 1000))
            self._observe()

    async def _consumer_answers(self) -> bool:
        """Whether the consumer's thread answers, whether or not the broker does."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # Before the first assignment there may be no thread.
                if self._joined:
                    await self.app.consumer_answers()
        except TimeoutError:
            log.warning("the consumer thread does not answer")
            return False
        self._answered_at = time.monotonic()
        return True

    async def _look(self, slots: Mapping[int, Slot], as_of: int) -> None:
        """Read the partitions' ends; what was appended by ``as_of`` is before these."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ends = await self.app.ends(frozenset(slots)) if slots else {}
        except (TimeoutError, KafkaError) as error:
            DEPENDENCY_UP.labels("kafka").set(0)
            log.warning("broker does not answer; waiting", error=repr(error))
            for slot in slots.values():
                slot.moved_at = time.monotonic()
            return
        if slots:
            DEPENDENCY_UP.labels("kafka").set(1)
        for partition, slot in slots.items():
            if self._slots.get(partition) is slot:
                self._watch(partition, slot, ends[partition], as_of)

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
        """Record the partitions' state for :meth:`health`; fail where only a restart helps."""
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
        if state_of(self._observation, now) is State.CONSUMER_UNRESPONSIVE:
            silent = f"{now - self._answered_at:.0f} s"
            message = f"Faust's consumer thread has not answered for {silent}."
            self.fail(RestartRequiredError(message))
        for partition, state in stalled(self._observation).items():
            self.fail(
                RestartRequiredError(
                    f"No record of {self.source}/{partition} was read for {state.unmoved:.0f} s, "
                    f"although {state.lag} are available."
                )
            )


def _undecodable(topic: str, partition: int, chunk: Chunk) -> RestartRequiredError:
    return RestartRequiredError(
        f"{topic}/{partition} cannot be decoded from offset {chunk.start} on: {chunk.fault}. "
        f"Offsets {chunk.start} to {chunk.end - 1} are affected. Restore the partition's log from "
        "another replica or a backup, or skip these records with `retrail dlq skip "
        f"{topic} {partition} {chunk.start}`.",
        topic=topic,
        partition=partition,
    )
