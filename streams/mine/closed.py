"""Trajectories that closed: whether a seq 0 is a repeat of an opening, and what a new fold needs.

A repeat of a closed trajectory's seq 0 would open it again, and further repeats, without the events
between them, would give other pairs. So a closed trajectory is remembered until the gap window has
passed since its last event. A repeat that comes later opens it again: one of all its events gives
equal pairs, and to remember longer would cost memory and reading again without end.

A fold that starts again must know of the same trajectories, so it starts before their openings.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from streams.mine.sources import Source


class Start(NamedTuple):
    """Where a fold may start: an offset, and the sources and the log time before it."""

    offset: int
    sources: tuple[Source, ...]
    clock: int


@dataclass(slots=True)
class Closed:
    """A closed trajectory.

    Attributes:
        start: right before its opening.
        last_opening: offset of the last seq 0, its opening or a repeat of that.
        last_offset, touched: of its last event that counted.
    """

    start: Start
    last_opening: int
    last_offset: int
    touched: int


class ClosedTrajectories:
    """Those of one partition, as far as they still matter."""

    def __init__(self, window_ms: int, records: int) -> None:
        """Remembers a trajectory for ``window_ms`` of log time and ``records`` offsets."""
        self._window_ms = window_ms
        self._records = records
        self._remembered: dict[str, Closed] = {}
        self._order: deque[tuple[str, Closed]] = deque()
        self._reopened: deque[Closed] = deque()

    def add(self, trajectory_id: str, closed: Closed, offset: int, clock: int) -> None:
        """It closes while the record at ``offset`` is folded, at log time ``clock``."""
        self._forget(offset, clock)
        if self._counts(closed, offset, clock):
            self._remembered[trajectory_id] = closed
            self._order.append((trajectory_id, closed))
        else:
            self._let_go(closed)

    def repeats(self, trajectory_id: str, offset: int, clock: int) -> bool:
        """Whether the seq 0 at ``offset``, of a trajectory that is not open, is a repeat."""
        closed = self._remembered.get(trajectory_id)
        if closed is None or not self._counts(closed, offset, clock):
            return False
        closed.last_opening = offset
        return True

    def start(self, wanted: Start, next_offset: int, clock: int) -> Start:
        """The last start, not after ``wanted``, from which a fold takes no repeat for an opening.

        Args:
            wanted: right before the oldest open trajectory, or the next record.
            next_offset: of the next record.
            clock: log time before it.
        """
        self._forget(next_offset, clock)
        start = min([wanted, *(closed.start for _, closed in self._order)])
        for closed in sorted(self._reopened, key=lambda closed: closed.start, reverse=True):
            if closed.start < start and start.offset <= closed.last_opening:
                start = closed.start
        # Starts never go back, so no later one reads a repeat that this one does not.
        while self._reopened and self._reopened[0].last_opening < start.offset:
            self._reopened.popleft()
        return start

    def _counts(self, closed: Closed, offset: int, clock: int) -> bool:
        return (
            clock - closed.touched < self._window_ms and offset - closed.last_offset < self._records
        )

    def _forget(self, offset: int, clock: int) -> None:
        while self._order and not self._counts(self._order[0][1], offset, clock):
            trajectory_id, closed = self._order.popleft()
            if self._remembered[trajectory_id] is closed:
                del self._remembered[trajectory_id]
            self._let_go(closed)

    def _let_go(self, closed: Closed) -> None:
        """A fold that starts between its opening and a repeat would take the repeat for one."""
        if closed.last_opening > closed.start.offset:
            self._reopened.append(closed)
