"""Outputs are acknowledged, then offsets are committed; and what a crash between them means."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from retrail_runtime.kafka import Outgoing
from retrail_runtime.retry import Deadline
from streams import metrics

log = structlog.get_logger(__name__)

CHECKPOINT_SECONDS = 1.0
CHECKPOINT_RECORDS = 50_000


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset and its metadata; offset -1: nothing was committed.

    Attributes:
        log_id: id of the log that the offset belongs to; empty if no worker of ours committed it.
    """

    offset: int
    metadata: str = ""
    log_id: str = ""


class Channel(Protocol):
    """One partition of an output topic."""

    async def send(self, records: Iterable[Outgoing]) -> int:
        """Send the first records, at least one and as many as one batch holds.

        Returns:
            How many, when all in-sync replicas have them. Raises if the broker rejects them.
        """


class Outbox:
    """Outputs of one partition: sent in order, one batch at a time, acknowledged in order.

    The next batch is sent only after the last one was acknowledged, so nothing follows a failed
    send. Nothing lingers: while a batch is being sent the next one fills up.
    """

    def __init__(
        self,
        channel: Channel,
        on_failure: Callable[[BaseException], None],
        *,
        max_records: int = 4_000,
        max_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        """Starts sending at once; must be created within a running loop.

        Args:
            channel: where to send.
            on_failure: called once if a send fails; nothing is sent after it.
            max_records: limit of unacknowledged outputs, and
            max_bytes: of their weight; at either one there is no capacity.
        """
        self._channel = channel
        self._on_failure = on_failure
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[int, Outgoing | asyncio.Future[Outgoing], int]] = deque()
        self._bytes = 0
        self._put = 0
        self._acknowledged = 0
        self._filled = asyncio.Event()
        self._progress = asyncio.Condition()
        self._closing = False
        self._task = asyncio.create_task(self._run())

    def put(self, position: int, output: Outgoing | asyncio.Future[Outgoing], weight: int) -> None:
        """Send this after all earlier outputs.

        Args:
            position: of the input that it comes from; never falls.
            output: what to send, now or when the future is done.
            weight: about how many bytes of memory it keeps.
        """
        self._waiting.append((position, output, weight))
        self._bytes += weight
        self._put += 1
        self._filled.set()

    @property
    def has_capacity(self) -> bool:
        """Whether both limits leave capacity for another output."""
        return len(self._waiting) < self._max_records and self._bytes < self._max_bytes

    @property
    def oldest(self) -> int | None:
        """Position of the oldest output that is not acknowledged; None if all are."""
        return self._waiting[0][0] if self._waiting else None

    async def acknowledged(self) -> None:
        """Wait until all that was put so far is acknowledged."""
        goal = self._put
        async with self._progress:
            await self._progress.wait_for(lambda: self._acknowledged >= goal)

    async def close(self, deadline: Deadline) -> None:
        """Send nothing more, and wait for the batch that is being sent."""
        self._closing = True
        self._filled.set()
        for _, output, _ in self._waiting:
            if isinstance(output, asyncio.Future):
                output.cancel()
        await asyncio.wait([self._task], timeout=deadline.remaining)
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while not self._closing:
                head = self._waiting[0][1] if self._waiting else None
                if head is None:
                    self._filled.clear()
                    await self._filled.wait()
                elif isinstance(head, asyncio.Future) and not head.done():
                    await asyncio.wait([head])
                else:
                    await self._send_ready()
        except Exception as failure:
            self._on_failure(failure)

    async def _send_ready(self) -> None:
        """Send the outputs at the head of the queue that are ready, as many as one batch holds."""
        count = await self._channel.send(self._ready())
        for _ in range(count):
            self._bytes -= self._waiting.popleft()[2]
        async with self._progress:
            self._acknowledged += count
            self._progress.notify_all()

    def _ready(self) -> Iterator[Outgoing]:
        for _, output, _ in self._waiting:
            if isinstance(output, asyncio.Future):
                if not output.done():
                    return
                output = output.result()
            yield output


class Checkpoint:
    """The offsets that a worker's group has committed, and those that it may commit next.

    A checkpoint is due every second or every :data:`CHECKPOINT_RECORDS` records, when partitions
    are revoked, and at the end:

    1. the task of a partition returns the offset from which a new owner would have to read (its
       *commit point*);
    2. all in-sync replicas acknowledge every output of the records before it, then :meth:`store`
       takes the commit point;
    3. :meth:`commit` commits it, with the task's metadata.

    A new owner starts at the last offset that was committed and reads everything from there again
    (the miner silently, up to the offset that the commit's metadata names). What it writes again is
    a *repeat*:

    ============================  ================================================================
    a crash                       what the new owner finds and does
    ============================  ================================================================
    before 1, between 1 and 2     the first outputs since the last commit are on their topic, the
                                  others are not; it writes all of them
    between 2 and 3               all are on their topic; it writes all of them again
    during 3                      the broker has the commit or not: as before or after 3
    after 3                       it writes nothing before the commit point again
    ============================  ================================================================

    Because 2 comes before 3, no crash loses an output; because a batch is sent only after the one
    before it was acknowledged, none leaves a hole. Readers recognise repeats:

    - pairs by ``pair_id``: the fold gives equal ones, and readers take the first;
    - judged events by source offset: the miner drops those that are not above the last one. They
      need not be equal, because judge ``llm`` may answer differently the second time: the first
      counts;
    - dead letters by the source's topic, partition and offset, in their headers;
    - ticks are not repeated: each has the time until which everything was judged.
    """

    def __init__(self, send: Callable[[Mapping[int, Committed]], Awaitable[bool]]) -> None:
        """Must be created within the running loop.

        Args:
            send: commits offsets; false if the partitions belong to another member now.
        """
        self._send = send
        self._committed: dict[int, Committed] = {}
        self._stored: dict[int, Committed] = {}
        self._records = 0
        self._enough = asyncio.Event()
        self._sending = asyncio.Lock()

    def start(self, committed: Mapping[int, Committed]) -> None:
        """Reading of these partitions starts at these offsets."""
        self._committed |= committed
        self._stored = {p: point for p, point in self._stored.items() if p not in committed}

    def clear(self) -> None:
        """Forget all partitions: the worker owns none now."""
        self._committed, self._stored = {}, {}

    def processed(self, records: int) -> None:
        """Count processed records; enough of them make a checkpoint due at once."""
        self._records += records
        if self._records >= CHECKPOINT_RECORDS:
            self._enough.set()

    async def expired(self) -> None:
        """Returns when the next checkpoint is due."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), CHECKPOINT_SECONDS)
        self._enough.clear()
        self._records = 0

    def store(self, partition: int, point: Committed) -> None:
        """Commit this point next; all outputs of the records before it are acknowledged."""
        if point != self._committed.get(partition, point):
            self._stored[partition] = point

    async def commit(self, deadline: Deadline) -> None:
        """Step 3. Offsets that are not committed by the deadline are stored again later."""
        try:
            async with asyncio.timeout(deadline.remaining), self._sending:
                if not self._stored:
                    return
                stored, self._stored = self._stored, {}
                ours = await self._send(stored)
        except TimeoutError:
            metrics.CHECKPOINTS.labels("waiting").inc()
            log.warning("offsets are not committed yet: broker does not answer")
            return
        metrics.CHECKPOINTS.labels("committed" if ours else "lost").inc()
        if not ours:
            log.info("partitions were revoked before the commit", partitions=sorted(stored))
            return
        self._committed |= {p: point for p, point in stored.items() if p in self._committed}
