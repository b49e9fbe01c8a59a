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
        self._offsets = {source[:2]: source.offset for source in reversed(known)}

    @property
    def known(self) -> tuple[Source, ...]:
        """All of them as they are now."""
        return tuple(Source(*log, offset) for log, offset in reversed(self._offsets.items()))

    def arrive(self, topic_id: str, partition: int, first: int, last: int) -> Arrival:
        """Classify a record that covers the offsets ``first`` to ``last``; ``next`` advances."""
        log = (topic_id, partition)
        if (offset := self._offsets.get(log)) is not None:
            if last <= offset:
                return "repeated"
            if first > offset + 1:
                return "refused"
            if len(self._offsets) > 1:
                del self._offsets[log]
        elif len(self._offsets) == MOST:
            del self._offsets[next(iter(self._offsets))]
        self._offsets[log] = last
        return "next"

    def next_of(self, topic_id: str, partition: int) -> int:
        """The next offset of a source; 0 if it is unknown."""
        return self._offsets.get((topic_id, partition), -1) + 1
