"""Offsets of a partition are continuous, or the worker goes back (DESIGN, "Guarantees").

Faust can skip records after a rebalance (``docs/decisions/``), and brokers drop old ones. Both show
as a record whose offset is not the next one; only the second shows again after a seek.
"""

from typing import Literal

Finding = Literal["continuous", "seek", "gap", "reset"]


class Continuity:
    """The next offset of one partition, and what a record with another offset means.

    ======================================  ==============================================
    the record's offset                     finding
    ======================================  ==============================================
    the next one                            ``continuous``
    another one, for the first time         ``seek``: drop the record, go back to the next
    the same one after that, above          ``gap``: no such records any more; go on there
    the same one after that, below          ``reset``: another log under the same name;
                                            start over there
    ======================================  ==============================================
    """

    def __init__(self, next_offset: int) -> None:
        self.next = next_offset
        self._sought: tuple[int, int] | None = None

    def check(self, offset: int) -> Finding:
        """Judge the offset of a record; does not move :attr:`next` unless it accepts a break."""
        if offset == self.next:
            self._sought = None
            return "continuous"
        if self._sought != (self.next, offset):
            self._sought = (self.next, offset)
            return "seek"
        finding: Finding = "gap" if offset > self.next else "reset"
        self.next, self._sought = offset, None
        return finding
