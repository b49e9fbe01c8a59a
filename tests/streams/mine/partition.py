"""A partition of judged-events that a test writes, and the steps of a trajectory for it."""

from streams.mine.fold import Fold
from streams.mine.trajectories import Limits
from tests.streams.judged_log import TICK, browse, end, judged_value, reasoning, search

LIMITS = Limits(gap_ms=30_000, idle_ms=1_800_000, age_ms=21_600_000, events=2_000)

STEPS = [
    search("q", "a", "b"),
    browse("b"),
    reasoning("b", "relevant", tokens=7),
    {"type": "answer"},
    end("correct"),
]


class Log:
    """A partition that is written and applied record by record."""

    def __init__(self, fold=None):
        self.fold = fold or Fold(limits=LIMITS)
        self.offset = self.source = 0

    def put(self, event, at=0):
        value = judged_value(event, self.source, at)
        self.source += 1
        return self.raw(value, at)

    def tick(self, at):
        return self.raw(TICK, at)

    def raw(self, value, at=0):
        pairs = self.fold.apply(self.offset, at, value)
        self.offset += 1
        return pairs
