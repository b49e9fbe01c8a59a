"""One partition of the source topic: its records, their offsets, and a worker's task on it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from retrail_runtime.retry import Deadline
from streams.loop.checkpoint import Channel, Committed


class Record(Protocol):
    """The fields of a Kafka record that workers read."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Hole:
    """Fetched offsets, ``offset`` to ``end - 1``, without a record to process.

    They are control markers of transactions, records of an aborted transaction, or a batch that
    cannot be decoded; the last has a ``fault``, the reason.
    """

    offset: int
    end: int
    fault: str = ""


class End(NamedTuple):
    """The end of a partition.

    Attributes:
        stable: last stable offset; at and after it there may be records of open transactions.
        high: high watermark, the offset after the last record.
    """

    stable: int
    high: int


class Handler(Protocol):
    """What a worker does with the partitions of its source topic."""

    async def assigned(self, partitions: frozenset[int]) -> None:
        """The worker owns these partitions now; nothing is delivered before this returns."""

    async def revoked(self) -> None:
        """The worker owns no partition; others may get them when this returns."""

    def positions(self) -> Mapping[int, int]:
        """Partition → offset of the record to deliver next."""

    def with_capacity(self) -> frozenset[int]:
        """Partitions that take more records now."""

    async def deliver(self, partition: int, fetched: Sequence[Record | Hole]) -> None:
        """Process what was fetched of one partition, in order, at least one item."""


Discontinuity = Literal["refetched", "gap", "reset"]
Finding = Literal["continuous", Discontinuity]


class Continuity:
    """The next offset of one partition, and what a record with another offset means.

    Faust can skip records after a rebalance (``docs/decisions/``), and brokers delete old ones. In
    both cases the offset of a record is not the next one; after a seek that happens again only in
    the second case. (A :class:`Hole` was fetched, so its offsets are not missing.)

    ======================================  ==============================================
    the record's offset                     finding
    ======================================  ==============================================
    the next one                            ``continuous``
    another one, for the first time         ``refetched``: drop the record, seek to the next
    the same one again, above the next      ``gap``: the records are gone; continue there
    the same one again, below the next      ``reset``: another log under the same name;
                                            start over there
    ======================================  ==============================================
    """

    def __init__(self, next_offset: int) -> None:
        self.next = next_offset
        self._sought: tuple[int, int] | None = None

    def check(self, offset: int) -> Finding:
        """Compare the offset of a record; moves :attr:`next` only for a gap or a reset."""
        if offset == self.next:
            self._sought = None
            return "continuous"
        if self._sought != (self.next, offset):
            self._sought = (self.next, offset)
            return "refetched"
        finding: Finding = "gap" if offset > self.next else "reset"
        self.next, self._sought = offset, None
        return finding


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive offsets of one partition, ``start`` to ``end - 1``, and the records among them.

    A chunk with a ``fault`` is a batch that cannot be decoded; it has no records.
    """

    start: int
    end: int
    records: Sequence[Record] = ()
    fault: str = ""


def chunks(fetched: Sequence[Record | Hole], most: int) -> Iterator[Chunk]:
    """Cut what was fetched where offsets are missing, at faults, and after ``most`` records."""
    start = end = -1
    records: list[Record] = []
    for item in fetched:
        fault = item.fault if isinstance(item, Hole) else ""
        full = len(records) >= most and not isinstance(item, Hole)
        if start >= 0 and (fault or full or item.offset != end):
            yield Chunk(start, end, records)
            start, records = -1, []
        if start < 0:
            start = item.offset
        if isinstance(item, Hole):
            end = item.end
        else:
            records.append(item)
            end = item.offset + 1
        if fault:
            yield Chunk(start, end, fault=fault)
            start = -1
    if start >= 0:
        yield Chunk(start, end, records)


class PartitionTask(ABC):
    """A worker's own work on one partition that it owns."""

    @property
    @abstractmethod
    def has_capacity(self) -> bool:
        """Whether it takes more records now."""

    @property
    def recovered(self) -> bool:
        """Whether it has read again what a former owner processed."""
        return True

    @property
    def refusing(self) -> bool:
        """Whether it refuses records because others before them are missing."""
        return False

    @abstractmethod
    def process(self, records: Sequence[Record], end: int) -> None:
        """Take records in order. Must not wait: outputs go to an outbox.

        Between and after them there may be control markers of transactions and aborted records;
        ``end`` is the offset after all of these.
        """

    def hole(self) -> None:
        """Records before the next ones are lost for good; they are counted already."""
        return

    @abstractmethod
    async def commit_point(self) -> Committed:
        """Steps 1 and 2 of a checkpoint."""

    def caught_up(self, as_of: int) -> None:
        """Called once a second while no record is left that was appended by ``as_of``.

        That is a time of this machine's clock, in ms since the epoch.
        """
        return

    @abstractmethod
    async def finish(self, deadline: Deadline) -> Committed | None:
        """Stop by the deadline; the last commit point, or ``None`` if it was not reached."""


@dataclass(slots=True)
class Slot:
    """A partition that this worker owns."""

    task: PartitionTask
    guard: Continuity
    log_id: str
    moved_at: float = field(default_factory=time.monotonic)
    last_timestamp: int = 0
    lag: int | None = None
    stable: int = -1
    stable_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a task needs of its partition.

    Attributes:
        partition: its number, in the source topic and in the output topics.
        log_id: id of the log that it reads: the topic's id.
        start: where to start, and the committed metadata; with another log id, no worker committed
            it for this log.
        channel: returns the same partition of another topic, or the one that is given.
        fail: to be called when the task cannot continue.
    """

    partition: int
    log_id: str
    start: Committed
    channel: Callable[..., Channel]
    fail: Callable[[BaseException], None]


MakeTask = Callable[[Assignment], PartitionTask]
