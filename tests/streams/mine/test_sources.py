"""What continues a source, over every way in which its records can come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.mine.sources import MOST, Source, Sources

A = Source("a", 0, 5)


@pytest.mark.parametrize(
    ("first", "last", "arrival"),
    [
        (6, 6, "next"),
        # The offsets between are named, and perhaps more.
        (6, 9, "next"),
        (0, 9, "next"),
        (7, 9, "refused"),
        (2**62, 2**62, "refused"),
        # It was applied already.
        (5, 5, "repeated"),
        (0, 3, "repeated"),
    ],
)
def test_a_record_of_a_known_source(first, last, arrival):
    for known in ([A], [Source("b", 0, 1), A]):
        sources = Sources(known)
        assert sources.arrive("a", 0, first, last) == arrival
        moved = (A._replace(offset=last), *(one for one in known if one != A))
        assert sources.known == (moved if arrival == "next" else tuple(known))


@pytest.mark.parametrize("place", [("b", 0), ("a", 1)])
def test_another_log_begins_anywhere_and_ends_no_other(place):
    sources = Sources([A])
    assert sources.arrive(*place, 2**62, 2**62) == "next"
    assert sources.arrive("a", 0, 5, 5) == "repeated"
    assert sources.arrive("a", 0, 6, 6) == "next"


def test_the_last_ones_that_went_on_are_known():
    sources = Sources([A])
    for number, forged in enumerate("bcdefg"):
        sources.arrive(forged, 0, 9, 9)
        assert sources.arrive("a", 0, 6 + number, 6 + number) == "next"
    assert sources.known == (Source("a", 0, 11), Source("g", 0, 9), Source("f", 0, 9))


def test_none_is_known_at_first():
    assert Sources().known == ()
    assert Sources().next_of("a", 0) == 0


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3), st.integers(0, 9))))
def test_a_source_only_moves_forward_and_by_what_was_named(records):
    sources = Sources()
    for topic_id, back, forward in records:
        before = sources.known
        here = sources.next_of(topic_id, 0) - 1 if sources.next_of(topic_id, 0) else None
        last = max(0, (here or 0) + forward - back)
        first = max(0, last - forward)
        arrival = sources.arrive(topic_id, 0, first, last)
        if here is not None and last <= here:
            assert arrival == "repeated"
        elif here is None or first <= here + 1:
            others = tuple(source for source in before if source.topic_id != topic_id)
            assert arrival == "next"
            assert sources.known == (Source(topic_id, 0, last), *others)[:MOST]
            continue
        else:
            assert arrival == "refused"
        assert sources.known == before
