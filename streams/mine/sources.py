"""How far each source of a partition of judged-events was applied, and which record continues it.

A source is a log of trajectory-events, identified by its topic's id and partition. Its judged
records are in the order of its offsets. Each names the offsets right before it that have no judged
record, so offsets never jump:

==========================================  ===================================================
the record, after the last one of its log   arrival
==========================================  ===================================================
at or below the last offset                 ``repeated``: a judge was restarted; it is dropped
the next offset, or the missing offsets     ``next``: it is applied
before it are named
another jump                                ``refused``: records before it are missing, or it is
                                            forged
of an unknown log                           ``next`` at any offset: the topic was created again,
                                            or is new
==========================================  ===================================================

The last three logs are kept, so that a forged id neither ends nor repeats the real one.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

MOST = 3

Arrival = Literal["next", "repeated", "refused"]


class Source(NamedTuple):
    """A log of trajectory-events, and the offset up to which it was applied."""

    topic_id: str
    partition: int
    offset: int


class Sources:
    """The sources of one partition; the one that continued last is first.

    >>> sources = Sources([Source("a", 0, 5)])
    >>> sources.arrive("a", 0, 7, 7), sources.arrive("a", 0, 6, 8)
    ('refused', 'next')
    >>> sources.known
    (Source(topic_id='a', partition=0, offset=8),)
    """

    def __init__(self, known: Sequence[Source] = ()) -> None:
        newest, *others = known or [Source("", -1, -1)]
        # The newest one in parts, because nearly every record continues it.
        self._topic_id, self._partition, self._offset = newest
        self._others = tuple(others)

    @property
    def known(self) -> tuple[Source, ...]:
        """All of them as they are now."""
        newest = Source(self._topic_id, self._partition, self._offset)
        return (newest, *self._others) if self._topic_id else ()

    def arrive(self, topic_id: str, partition: int, first: int, last: int) -> Arrival:
        """Classify a record that covers the offsets ``first`` to ``last``; ``next`` advances."""
        if topic_id != self._topic_id or partition != self._partition:
            return self._arrive_of_another(topic_id, partition, first, last)
        arrival = _arrival(self._offset, first, last)
        if arrival == "next":
            self._offset = last
        return arrival

    def next_of(self, topic_id: str, partition: int) -> int:
        """The next offset of a source; 0 if it is unknown."""
        return next((s.offset + 1 for s in self.known if s[:2] == (topic_id, partition)), 0)

    def _arrive_of_another(self, topic_id: str, partition: int, first: int, last: int) -> Arrival:
        place, known = (topic_id, partition), self.known
        for source in known:
            if source[:2] == place and (found := _arrival(source.offset, first, last)) != "next":
                return found
        self._others = tuple(source for source in known if source[:2] != place)[: MOST - 1]
        self._topic_id, self._partition, self._offset = topic_id, partition, last
        return "next"


def _arrival(offset: int, first: int, last: int) -> Arrival:
    if last <= offset:
        return "repeated"
    return "next" if first <= offset + 1 else "refused"
