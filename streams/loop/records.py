"""The source topic as a worker sees it: its records, their offsets, and the partitions it owns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Record(Protocol):
    """The fields of a Kafka record that are read."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset and its metadata; offset -1: nothing was committed."""

    offset: int
    metadata: str = ""


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

    async def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Records of one partition, in order, at least one."""


Finding = Literal["continuous", "refetched", "gap", "reset"]


class Continuity:
    """The next offset of one partition, and what a record with another offset means.

    Faust can skip records after a rebalance (``docs/decisions/``), and brokers delete old ones.
    Both show as a record whose offset is not the next one; only the second shows again after a
    seek.

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


def continuous(records: Sequence[Record], start: int, most: int) -> Sequence[Record]:
    """The longest row of records with consecutive offsets from index ``start``, up to ``most``."""
    end = min(start + most, len(records))
    first = records[start].offset
    if records[end - 1].offset - first != end - 1 - start:
        end = next(i for i in range(start, end) if records[i].offset - first != i - start)
    return records[start:end]
