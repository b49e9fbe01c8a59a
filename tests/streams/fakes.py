"""What a worker's tasks need of Kafka, in memory."""

import asyncio
import time
from dataclasses import dataclass

from streams.loop.source import Committed


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

    def new_batch(self):
        return self

    def append(self, output):
        self.values.append(output.value)
        return True

    async def send(self, batch):
        self.written.set()


class Source:
    """A :class:`BatchApp` over a topic with one end for all partitions, told after ``seconds``."""

    def __init__(self, end=0, seconds=0.0):
        self.end = end
        self.seconds = seconds
        self.answered = []

    async def ends(self, partitions):
        await asyncio.sleep(self.seconds)
        self.answered.append(time.time() * 1000)
        return dict.fromkeys(partitions, self.end)

    async def committed(self, partitions):
        return dict.fromkeys(partitions, Committed(0))

    async def commit_offsets(self, commits):
        return True
