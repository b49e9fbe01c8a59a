"""The source topic as a worker sees it: its records, their offsets, and the partitions it owns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol


class Record(Protocol):
    """The fields of a Kafka record that are read."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset and its metadata; offset -1: nothing was committed.

    Attributes:
        log_id: of the log that it is an offset of; empty if no worker of ours committed it.
    """

    offset: int
    metadata: str = ""
    log_id: str = ""


@dataclass(frozen=True, slots=True)
class Hole:
    """Fetched offsets, ``offset`` to ``end - 1``, that hold nothing to process.

    They are control markers of transactions, or records of an aborted one; or a batch that cannot
    be decoded, whose ``fault`` says why.
    """

    offset: int
    end: int
    fault: str = ""


class End(NamedTuple):
    """The end of a partition.

    Attributes:
        stable: last stable offset, behind which records of open transactions may stand.
        high: high watermark, the offset behind all records.
    """

    stable: int
    high: int


class Handler(Protocol):
    """What a worker does with the partitions of its source topic."""

    async def assigned(self, partitions: frozenset[int]) -> None:
        """It owns these now; nothing is delivered before this returns."""

    async def revoked(self) -> None:
        """It owns none; others may get them when this returns."""

    def positions(self) -> Mapping[int, int]:
        """Partition → offset of the record to deliver next."""

    def with_capacity(self) -> frozenset[int]:
        """Partitions for which more may be delivered now."""

    async def deliver(self, partition: int, fetched: Sequence[Record | Hole]) -> None:
        """What was fetched of one partition, in order, at least one."""


Finding = Literal["continuous", "refetched", "gap", "reset"]


class Continuity:
    """The next offset of one partition, and what a record with another offset means.

    Faust can skip records after a rebalance (``docs/decisions/``), and brokers delete old ones.
    Both show as a record whose offset is not the next one; only the second shows again after a
    seek. (A :class:`Hole` is no such thing: it was fetched.)

    ======================================  ==============================================
    the record's offset                     finding
    ======================================  ==============================================
    the next one                            ``continuous``
    another one, for the first time         ``refetched``: drop the record, seek to the next
    the same one after that, above          ``gap``: no such records any more; continue there
    the same one after that, below          ``reset``: another log under the same name;
                                            start over there
    ======================================  ==============================================
    """

    def __init__(self, next_offset: int) -> None:
        self.next = next_offset
        self._sought: tuple[int, int] | None = None

    def check(self, offset: int) -> Finding:
        """Judge the offset of a record; moves :attr:`next` only for a gap or a reset."""
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
