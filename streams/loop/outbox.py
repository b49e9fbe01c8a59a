"""Outputs of one partition: sent in order, one batch at a time, acknowledged in order.

Because the next batch leaves only when the last one was acknowledged, a failed send is the last
one of its partition. Nothing lingers: while a batch is being sent the next one fills up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from retrail_runtime.kafka import Outgoing
from streams.loop.checkpoint import Deadline


class Channel(Protocol):
    """One partition of an output topic."""

    async def send(self, records: Iterable[Outgoing]) -> int:
        """Send the first records, at least one and as many as one batch holds.

        Returns:
            How many, when all in-sync replicas have them. Raises when they never will.
        """


class Outbox:
    """A queue into a :class:`Channel`, whose entries stand for positions of the input."""

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
            channel: where to.
            on_failure: called once if a send fails; nothing is sent after it.
            max_records: unacknowledged outputs from which on it has no capacity,
            max_bytes: or weight of them.
        """
        self._channel = channel
        self._on_failure = on_failure
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._bytes = 0
        self._waiting: deque[Outgoing | asyncio.Future[Outgoing]] = deque()
        self._put = 0
        self._acknowledged = 0
        self._filled = asyncio.Event()
        self._progress = asyncio.Condition()
        self._closing = False
        self._task = asyncio.create_task(self._run())

    def put(self, position: int, output: Outgoing | asyncio.Future[Outgoing], weight: int) -> None:
        """Send this after all earlier ones, once it is there.

        Args:
            position: of the input that it comes from; never falls.
            output: what to send, now or when it is known.
            weight: about how many bytes of memory it keeps.
        """
        self._unacknowledged.append((position, weight))
        self._bytes += weight
        self._waiting.append(output)
        self._put += 1
        self._filled.set()

    @property
    def has_capacity(self) -> bool:
        """Whether more may be put without too much memory."""
        return len(self._unacknowledged) < self._max_records and self._bytes < self._max_bytes

    @property
    def oldest(self) -> int | None:
        """Position of the oldest output that is not acknowledged; None if all are."""
        return self._unacknowledged[0][0] if self._unacknowledged else None

    async def acknowledged(self) -> None:
        """Wait until all that was put so far is acknowledged."""
        goal = self._put
        async with self._progress:
            await self._progress.wait_for(lambda: self._acknowledged >= goal)

    async def close(self, deadline: Deadline) -> None:
        """Send nothing more, and wait for the batch that is being sent."""
        self._closing = True
        self._filled.set()
        for output in self._waiting:
            if isinstance(output, asyncio.Future):
                output.cancel()
        await asyncio.wait([self._task], timeout=deadline.remaining)
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while not self._closing:
                head = self._waiting[0] if self._waiting else None
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
        """Send what is known at the head of the queue, as far as it fits into one batch."""
        count = await self._channel.send(self._ready())
        for _ in range(count):
            self._waiting.popleft()
            self._bytes -= self._unacknowledged.popleft()[1]
        async with self._progress:
            self._acknowledged += count
            self._progress.notify_all()

    def _ready(self) -> Iterator[Outgoing]:
        for output in self._waiting:
            if isinstance(output, asyncio.Future):
                if not output.done():
                    return
                output = output.result()
            yield output
