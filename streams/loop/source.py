"""The source topic as a worker sees it: records, commits, and the partitions that it is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.loop.outbox import Headers


class Record(Protocol):
    """What is read of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset and what was written beside it; offset -1: nothing was committed."""

    offset: int
    metadata: str = ""


class Handler(Protocol):
    """What a worker does with the partitions of its source topic."""

    async def assigned(self, partitions: frozenset[int]) -> None:
        """These are ours now; nothing is delivered before this returns."""

    async def revoked(self) -> None:
        """None are ours any more; they may be given away when this returns."""

    def positions(self) -> Mapping[int, int]:
        """Partition → offset of the record to deliver next."""

    def with_room(self) -> frozenset[int]:
        """Partitions for which more may be delivered now."""

    async def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Records of one partition, in order, at least one."""
