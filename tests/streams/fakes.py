"""What a worker's tasks need of Kafka, in memory."""

import asyncio
import time
from dataclasses import dataclass

from streams.loop.checkpoint import Committed
from streams.loop.partition import Assignment, End

LOG = "log-1"
"""The id of the source topic."""


@dataclass
class FakeRecord:
    """A record of a source topic."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0
    headers: tuple = ()


class Tape:
    """A channel that acknowledges and keeps what is sent."""

    def __init__(self):
        self.values = []
        self.written = asyncio.Event()

    async def send(self, records):
        values = [record.value for record in records]
        self.values += values
        self.written.set()
        return len(values)


class Source:
    """A :class:`BatchApp` over a topic whose partitions have one end, read in ``seconds``."""

    def __init__(self, end=0, seconds=0.0):
        self.end, self.high = end, None
        self.seconds = seconds
        self.answered = []
        self.commits = {}
        self.id = LOG
        self.sought = []
        self.has_sought = asyncio.Event()
        self.passed_over = set()

    async def consumer_answers(self): ...

    async def ends(self, partitions):
        await asyncio.sleep(self.seconds)
        self.answered.append(time.time() * 1000)
        return dict.fromkeys(partitions, End(self.end, self.high or self.end))

    async def committed(self, partitions):
        return {partition: self.commits.get(partition, Committed(-1)) for partition in partitions}

    async def beginnings(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def topic_id(self):
        if isinstance(self.id, Exception):
            raise self.id
        return self.id

    async def seek(self, partition, offset):
        self.sought.append((partition, offset))
        self.has_sought.set()

    async def skipped(self, partition):
        return self.passed_over

    async def commit_offsets(self, commits):
        self.commits |= commits
        return True

    def output(self, topic, partition):
        return Tape()


def never(failure):
    """Fails the test if a task gives up."""
    raise failure


def assignment(partition=0, start=None, *channels):
    """The assignment of a task whose outputs go to ``channels``, in the order of its calls."""
    waiting = iter(channels)
    start = start or Committed(0, "", LOG)
    return Assignment(partition, LOG, start, lambda topic: next(waiting, None) or Tape(), never)
