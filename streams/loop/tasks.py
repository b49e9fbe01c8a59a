"""What a worker does on one partition: the part of the loop that judge and miner write."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streams.loop.checkpoint import Deadline
from streams.loop.outbox import Channel
from streams.loop.records import Committed, Continuity, Record


class PartitionTask(Protocol):
    """A worker's own work on one partition that it owns."""

    @property
    def refusing(self) -> bool:
        """Whether its last records do not continue what came before them."""

    @property
    def has_capacity(self) -> bool:
        """Whether it takes more records now."""

    @property
    def recovered(self) -> bool:
        """Whether it has read again what was done before the partition came here."""

    def process(self, records: Sequence[Record], end: int) -> None:
        """Take records in order. Must not wait: outputs go to an outbox.

        Between and behind them there may be control markers of transactions and aborted records;
        ``end`` is the offset behind all of these.
        """

    def hole(self) -> None:
        """Records before the next ones are lost, for good and counted."""

    async def commit_point(self) -> Committed:
        """Steps 1 and 2 of a checkpoint."""

    def caught_up(self, as_of: int) -> None:
        """Called once a second while nothing is left to read of what was appended by ``as_of``.

        That is a time of this machine's clock, in ms since the epoch.
        """

    async def finish(self, deadline: Deadline) -> Committed | None:
        """Stop by the deadline; the last commit point, if it could be reached."""


@dataclass(slots=True)
class Slot:
    """A partition that this worker owns."""

    task: PartitionTask
    guard: Continuity
    log_id: str
    moved_at: float = field(default_factory=time.monotonic)
    last_timestamp: int = 0
    lag: int | None = None
    stable: int = 0
    stable_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a task needs of its partition.

    Attributes:
        partition: its number, in the source topic and in those that are written.
        log_id: of the log that it reads: the topic's id.
        start: where and how to start; another log id: no worker committed that for this log.
        channel: the same partition of another topic.
        fail: to be called when the task cannot continue.
    """

    partition: int
    log_id: str
    start: Committed
    channel: Callable[[str], Channel]
    fail: Callable[[BaseException], None]


MakeTask = Callable[[Assignment], PartitionTask]
