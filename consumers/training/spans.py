"""Offsets of ranges that may overlap, merged and searched."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from schemas.runs import Range

Spans = Mapping[int, Sequence[tuple[int, int]]]
"""Start and end offsets by partition, sorted and apart."""


def merged(ranges: Iterable[Range], topic: str) -> Spans:
    """The offsets of a topic in ``ranges``."""
    found: dict[int, list[tuple[int, int]]] = {}
    for span in sorted(ranges, key=lambda span: (span.partition, span.start)):
        if span.topic != topic:
            continue
        spans = found.setdefault(span.partition, [])
        if spans and span.start <= spans[-1][1]:
            start, end = spans.pop()
            spans.append((start, max(end, span.end)))
        else:
            spans.append((span.start, span.end))
    return found


def holds(spans: Spans, partition: int, offset: int) -> bool:
    """Whether a place is in the spans."""
    some = spans.get(partition, ())
    index = bisect_right(some, offset, key=lambda span: span[0]) - 1
    return index >= 0 and offset < some[index][1]
