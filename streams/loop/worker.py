"""What judge and miner share: partitions come and go, records are read, offsets are committed.

A worker is a Faust app over one topic (:mod:`streams.loop.faust_batches`) and a task for each
partition that it owns. The task is the worker's own part: see :class:`PartitionTask`.

A checkpoint, every second or every :data:`CHECKPOINT_RECORDS` records, when a partition is given
away, and at the end:

1. the task says from where a new owner would have to read (its *commit point*);
2. every output of the records before it is acknowledged by all in-sync replicas;
3. the offset is committed, with the task's metadata.

What a crash between two steps means; the new owner starts at the last commit point that was
committed and reads everything from there again (the miner silently, up to the offset that the
commit's metadata names); what it writes again is a *repeat*:

- before 1, or between 1 and 2: of the outputs since the last commit, the first ones are on their
  topic and the rest is not; all of them are written again;
- between 2 and 3: all are on their topic, and all are written again;
- during 3: the broker has the commit or not; it means the same as before or after it;
- after 3: nothing before the commit point is written again.

As 2 stands before 3, no crash can lose an output; as a batch is sent only when the one before it is
acknowledged, none leaves a hole. Repeats are recognised by what they carry:

- pairs by ``pair_id``: the fold gives equal ones, and readers take the first;
- judged events by source offset: the miner drops what is not above the last one. They need not be
  equal, because judge ``llm`` may answer differently when asked again: the first on the log counts;
- dead letters by the source's topic, partition and offset, in their headers;
- ticks are not repeated: each says until when all was judged.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog
from aiokafka.errors import KafkaError

from retrail_runtime.metrics import LAG_RECORDS, Health
from schemas.errors import RestartRequiredError
from streams import metrics
from streams.loop import health
from streams.loop.continuity import Continuity
from streams.loop.faust_batches import BatchApp
from streams.loop.health import Observation, PartitionState
from streams.loop.source import Committed, Record

log = structlog.get_logger(__name__)

CHECKPOINT_SECONDS = 1.0
CHECKPOINT_RECORDS = 50_000
CHUNK = 500
"""Records between two turns of the event loop, so that acknowledgements get through."""

ANSWER_SECONDS = 10.0
"""After which the worker says that it waits for the broker."""

HAND_OVER_SECONDS = 5.0
"""At most, for the last outputs of a partition that goes away to be acknowledged."""


class PartitionTask(Protocol):
    """A worker's own work on one partition that it owns."""

    @property
    def room(self) -> bool:
        """Whether it takes more records now."""

    @property
    def recovered(self) -> bool:
        """Whether it has read again what was done before the partition came here."""

    def process(self, records: Sequence[Record]) -> None:
        """Take records in order. Must not wait: outputs go to an outbox."""

    async def commit_point(self) -> Committed:
        """Steps 1 and 2 of a checkpoint."""

    def caught_up(self, as_of: int) -> None:
        """Called once a second while nothing is left to read of what was appended by ``as_of``.

        That is a time of this machine's clock, in ms since the epoch.
        """

    async def finish(self, patience: float) -> Committed | None:
        """Stop, within ``patience`` seconds; the last commit point, if it could be reached."""


@dataclass(slots=True)
class Slot:
    """A partition that this worker owns."""

    task: PartitionTask
    guard: Continuity
    committed: Committed
    moved_at: float = field(default_factory=time.monotonic)
    last_timestamp: int = 0
    lag: int | None = None


MakeTask = Callable[[BatchApp, int, Committed, Callable[[BaseException], None]], PartitionTask]
"""(app, partition, where and how to start, what to call when it cannot go on) → task."""


class Worker:
    """Runs partition tasks over one source topic; a :class:`streams.loop.source.Handler`."""

    def __init__(self, source: str, session_seconds: float, make_task: MakeTask) -> None:
        """Must be created within the running loop.

        Args:
            source: topic to read.
            session_seconds: after which a silent member loses its partitions.
            make_task: makes the worker's own part for a partition.
        """
        self.source = source
        self.app: BatchApp
        self._make_task = make_task
        self._patience = min(HAND_OVER_SECONDS, session_seconds / 2)
        self._slots: dict[int, Slot] = {}
        self._assigned = self._joined = False
        self._observation = Observation(time.monotonic())
        self._heard_at = time.monotonic()
        self._epoch = 0
        self._records_since = 0
        self._due = asyncio.Event()
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def fail(self, failure: BaseException) -> None:
        """End the worker with exit status 75, after a last checkpoint of what is certain."""
        if not self.failure.done():
            self.failure.set_result(failure)
            self._observation = replace(self._observation, leaving=True)

    def health(self) -> Health:
        """Whether it lives and is ready; may be asked from any thread."""
        return health.assess(self._observation, time.monotonic())

    @property
    def observed_at(self) -> float:
        """When it last looked at itself, on the monotonic clock; may be asked from any thread."""
        return self._observation.at

    # -- what Faust asks -----------------------------------------------------------------------

    def positions(self) -> Mapping[int, int]:
        """Partition → offset of the record to deliver next."""
        return {partition: slot.guard.next for partition, slot in self._slots.items()}

    def with_room(self) -> frozenset[int]:
        """Partitions whose task takes more records now."""
        return frozenset(partition for partition, slot in self._slots.items() if slot.task.room)

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Start a task a partition, from its last checkpoint or its beginning."""
        epoch, self._joined = self._epoch, True
        committed = await self.app.committed(partitions) if partitions else {}
        fresh = frozenset(p for p, found in committed.items() if found.offset < 0)
        beginnings = await self.app.beginnings(fresh) if fresh else {}
        if epoch != self._epoch:
            return
        start = committed | {p: Committed(offset) for p, offset in beginnings.items()}
        self._slots = {partition: self._slot(partition, start[partition]) for partition in start}
        self._assigned = True
        self._observe()
        metrics.ASSIGNED.labels(self.source).set(len(self._slots))
        log.info("partitions assigned", starts={p: found.offset for p, found in start.items()})

    async def revoked(self) -> None:
        """Drop all state, after a last checkpoint."""
        self._epoch += 1
        slots, self._slots = self._slots, {}
        self._assigned = False
        self._observe()
        metrics.ASSIGNED.labels(self.source).set(0)
        if not slots:
            return
        points = await asyncio.gather(
            *(slot.task.finish(self._patience) for slot in slots.values())
        )
        certain = {p: point for p, point in zip(slots, points, strict=True) if point is not None}
        await self._commit(slots, certain, self._patience)
        for partition in slots:
            LAG_RECORDS.labels(self.source, partition).set(0)
            metrics.LAG_SECONDS.labels(self.source, partition).set(0)

    async def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Give a batch to its task, in chunks, as far as its offsets are continuous."""
        slot, at = self._slots.get(partition), 0
        while slot is not None and at < len(records):
            if slot.guard.next != records[at].offset and not await self._accepts(
                partition, slot, records[at]
            ):
                return
            chunk = continuous(records, at, CHUNK)
            slot.task.process(chunk)
            at += len(chunk)
            slot.guard.next = chunk[-1].offset + 1
            slot.moved_at, slot.last_timestamp = time.monotonic(), chunk[-1].timestamp
            self._records_since += len(chunk)
            if self._records_since >= CHECKPOINT_RECORDS:
                self._due.set()
            await asyncio.sleep(0)
            if self._slots.get(partition) is not slot:
                return

    async def _accepts(self, partition: int, slot: Slot, record: Record) -> bool:
        """Whether reading goes on at a record that is not the next one; else it goes back."""
        wanted = slot.guard.next
        finding = slot.guard.check(record.offset)
        if finding == "continuous":
            return True
        metrics.HOLES.labels(self.source, "refetched" if finding == "seek" else finding).inc()
        place = {"topic": self.source, "partition": partition, "wanted": wanted}
        log.warning("offsets are not continuous", finding=finding, got=record.offset, **place)
        if finding == "reset":
            await slot.task.finish(self._patience)
            self._slots[partition] = self._slot(partition, Committed(record.offset))
        if finding != "gap":
            await self.app.seek(partition, self._slots[partition].guard.next)
        return finding == "gap"

    def _slot(self, partition: int, start: Committed) -> Slot:
        task = self._make_task(self.app, partition, start, self.fail)
        return Slot(task, Continuity(start.offset), start)

    # -- checkpoints and watching --------------------------------------------------------------

    async def keep_checkpointing(self) -> None:
        """A checkpoint every second, sooner under load."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), CHECKPOINT_SECONDS)
            self._due.clear()
            self._records_since = 0
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        slots = dict(self._slots)
        waiting = {p: asyncio.create_task(slot.task.commit_point()) for p, slot in slots.items()}
        if not waiting:
            return
        done, late = await asyncio.wait(waiting.values(), timeout=ANSWER_SECONDS)
        for task in late:
            task.cancel()
        if late:
            metrics.CHECKPOINTS.labels("waiting").inc()
            log.warning("outputs are not acknowledged yet", seconds=ANSWER_SECONDS)
        points = {
            partition: task.result()
            for partition, task in waiting.items()
            if task in done and self._slots.get(partition) is slots[partition]
        }
        await self._commit(slots, points, ANSWER_SECONDS)

    async def _commit(
        self, slots: Mapping[int, Slot], points: Mapping[int, Committed], patience: float
    ) -> None:
        """Step 3, for the partitions where something changed."""
        changed = {p: point for p, point in points.items() if point != slots[p].committed}
        if not changed:
            return
        try:
            async with asyncio.timeout(patience):
                ours = await self.app.commit_offsets(changed)
        except TimeoutError:
            metrics.CHECKPOINTS.labels("waiting").inc()
            log.warning("offsets cannot be committed yet: the broker does not answer")
            return
        metrics.CHECKPOINTS.labels("committed" if ours else "lost").inc()
        if not ours:
            log.info("partitions were given away before the commit", partitions=sorted(changed))
            return
        for partition, point in changed.items():
            slots[partition].committed = point

    async def keep_watching(self) -> None:
        """Every second: lag, ticks of tasks that caught up, and whether records still come."""
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            slots, as_of = dict(self._slots), int(time.time() * 1000)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    ends = await self._look(frozenset(slots))
            except (TimeoutError, KafkaError) as error:
                if await self._hears():
                    log.warning("the broker does not answer; waiting", error=repr(error))
                    for slot in slots.values():
                        slot.moved_at = time.monotonic()
            else:
                self._heard_at = time.monotonic()
                for partition, slot in slots.items():
                    if self._slots.get(partition) is slot:
                        self._watch(partition, slot, ends[partition], as_of)
            self._observe()

    async def _look(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """The ends of the partitions; without any, whether the consumer's thread answers."""
        if partitions:
            return await self.app.ends(partitions)
        if self._joined:
            await self.app.consumer_answers()
        return {}

    async def _hears(self) -> bool:
        """Whether the consumer's thread still works, so that it is the broker who is silent."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.app.consumer_answers()
        except TimeoutError:
            log.warning("the thread that reads from the broker does not answer")
            return False
        self._heard_at = time.monotonic()
        return True

    def _watch(self, partition: int, slot: Slot, end: int, as_of: int) -> None:
        slot.lag = lag = max(0, end - slot.guard.next)
        behind = time.time() - slot.last_timestamp / 1000 if lag and slot.last_timestamp else 0.0
        LAG_RECORDS.labels(self.source, partition).set(lag)
        metrics.LAG_SECONDS.labels(self.source, partition).set(max(0.0, behind))
        if not lag:
            slot.task.caught_up(as_of)
        if not lag or not slot.task.room:
            slot.moved_at = time.monotonic()

    def _observe(self) -> None:
        """Note how the partitions are, for :meth:`health`; what only a restart helps ends it."""
        now = time.monotonic()
        states = {
            partition: PartitionState(slot.lag, now - slot.moved_at, slot.task.recovered)
            for partition, slot in self._slots.items()
        }
        self._observation = Observation(
            now,
            states if self._assigned else None,
            deaf=now - self._heard_at,
            leaving=self.failure.done(),
        )
        if health.state_of(self._observation, now) == "deaf":
            self.fail(
                RestartRequiredError(
                    f"Faust's consumer thread has not answered for {self._observation.deaf:.0f} s."
                )
            )
        for partition, state in health.stalled(self._observation).items():
            self.fail(
                RestartRequiredError(
                    f"No record of {self.source}/{partition} came for {state.unmoved:.0f} s, "
                    f"although {state.lag} are there."
                )
            )


def continuous(records: Sequence[Record], start: int, most: int) -> Sequence[Record]:
    """The longest row of records with consecutive offsets from index ``start``, up to ``most``."""
    end = min(start + most, len(records))
    first = records[start].offset
    if records[end - 1].offset - first != end - 1 - start:
        end = next(i for i in range(start, end) if records[i].offset - first != i - start)
    return records[start:end]
