"""When offsets are committed, which ones, and what a crash in between means."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog

from streams import metrics
from streams.loop.records import Committed

log = structlog.get_logger(__name__)

CHECKPOINT_SECONDS = 1.0
CHECKPOINT_RECORDS = 50_000


class Deadline:
    """The one moment by which several waits in a row must be over."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._at - time.monotonic())

    def earlier(self, seconds: float) -> "Deadline":
        """A deadline that leaves ``seconds`` of this one to what comes after it."""
        return Deadline(max(0.0, self.remaining - seconds))


class Checkpoint:
    """The offsets that a worker's group has committed, and those that it may commit next.

    A checkpoint is due every second or every :data:`CHECKPOINT_RECORDS` records; there is one, too,
    when partitions are revoked, and at the end:

    1. the task of a partition names the offset from which a new owner would have to read (its
       *commit point*);
    2. every output of the records before it is acknowledged by all in-sync replicas, then
       :meth:`store` takes the commit point;
    3. :meth:`commit` commits it, with the task's metadata.

    A new owner starts at the last offset that was committed and reads everything from there again
    (the miner silently, up to the offset that the commit's metadata names). What it writes again is
    a *repeat*:

    ============================  ================================================================
    a crash                       what the new owner finds and does
    ============================  ================================================================
    before 1, between 1 and 2     of the outputs since the last commit, the first ones are on their
                                  topic and the rest is not; it writes all of them
    between 2 and 3               all are on their topic; it writes all of them again
    during 3                      the broker has the commit or not: as before or after 3
    after 3                       nothing before the commit point is written again
    ============================  ================================================================

    As 2 stands before 3, no crash can lose an output; as a batch is sent only when the one before
    it is acknowledged, none leaves a hole. Repeats are recognised by what they carry:

    - pairs by ``pair_id``: the fold gives equal ones, and readers take the first;
    - judged events by source offset: the miner drops what is not above the last one. They need not
      be equal, because judge ``llm`` may answer differently when asked again: the first counts;
    - dead letters by the source's topic, partition and offset, in their headers;
    - ticks are not repeated: each names the time until which all was judged.
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
        """These partitions are read from there."""
        self._committed |= committed
        self._stored = {p: point for p, point in self._stored.items() if p not in committed}

    def clear(self) -> None:
        """No partition is owned any more."""
        self._committed, self._stored = {}, {}

    def processed(self, records: int) -> None:
        """So many records were processed; enough of them make a checkpoint due at once."""
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
        """Commit this next: all outputs of the records before it are acknowledged."""
        if point != self._committed.get(partition, point):
            self._stored[partition] = point

    async def commit(self, deadline: Deadline) -> None:
        """Step 3. Offsets that the broker does not take by the deadline are stored anew later."""
        try:
            async with asyncio.timeout(deadline.remaining), self._sending:
                if not self._stored:
                    return
                stored, self._stored = self._stored, {}
                ours = await self._send(stored)
        except TimeoutError:
            metrics.CHECKPOINTS.labels("waiting").inc()
            log.warning("offsets are not committed yet: the broker does not answer")
            return
        metrics.CHECKPOINTS.labels("committed" if ours else "lost").inc()
        if not ours:
            log.info("partitions were revoked before the commit", partitions=sorted(stored))
            return
        self._committed |= {p: point for p, point in stored.items() if p in self._committed}
