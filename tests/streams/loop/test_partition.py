"""The guard over offsets, over every way that a log and a consumer can disagree."""

from hypothesis import given
from hypothesis import strategies as st

from streams.loop.partition import Chunk, Continuity, Hole, chunks
from tests.streams.fakes import FakeRecord


def test_the_next_record_is_continuous():
    guard = Continuity(7)
    assert guard.check(7) == "continuous"


def test_a_skip_is_sought_once_and_then_recovered():
    guard = Continuity(7)
    assert guard.check(9) == "refetched"
    assert guard.next == 7
    assert guard.check(7) == "continuous"


def test_the_same_hole_again_is_accepted():
    guard = Continuity(7)
    assert [guard.check(9), guard.check(9)] == ["refetched", "gap"]
    assert guard.check(9) == "continuous"


def test_another_hole_is_sought_again():
    guard = Continuity(7)
    assert [guard.check(9), guard.check(8), guard.check(8)] == ["refetched", "refetched", "gap"]


def test_a_log_that_starts_again_is_seen():
    guard = Continuity(700)
    assert [guard.check(0), guard.check(0)] == ["refetched", "reset"]
    assert guard.next == 0


@given(kept=st.sets(st.integers(0, 60), min_size=1), jumps=st.lists(st.integers(0, 70)))
def test_every_record_that_the_log_still_has_is_read_in_order(kept, jumps):
    """Wherever the consumer jumps after a record, forth or back, a guarded reader gets the log."""
    log, jumps = sorted(kept), list(jumps)
    guard, position, read = Continuity(0), 0, []
    while guard.next <= log[-1] or jumps:
        ahead = [offset for offset in log if offset >= position]
        if not ahead:
            position = guard.next = log[0] if guard.next > log[-1] else guard.next
            continue
        finding = guard.check(ahead[0])
        if finding == "refetched":
            position = guard.next
            continue
        assert finding != "reset"
        read.append(ahead[0])
        guard.next = ahead[0] + 1
        position = jumps.pop() if jumps else guard.next
    assert [offset for at, offset in enumerate(read) if offset not in read[:at]] == log


def records(*offsets):
    return [FakeRecord(offset, b"") for offset in offsets]


def test_control_markers_and_aborted_records_cut_nothing():
    one, two, three = records(3, 4, 8)
    assert list(chunks([one, two, Hole(5, 6), Hole(6, 8), three, Hole(9, 10)], 100)) == [
        Chunk(3, 10, [one, two, three])
    ]


def test_a_producer_that_commits_every_ten_records_is_read_in_whole_chunks():
    fetched = []
    for start in range(0, 1_100, 11):
        fetched += [*records(*range(start, start + 10)), Hole(start + 10, start + 11)]
    assert [len(chunk.records) for chunk in chunks(fetched, 500)] == [500, 500]


def test_a_batch_that_cannot_be_decoded_stands_alone():
    one, two = records(3, 9)
    assert list(chunks([one, Hole(4, 5), Hole(5, 9, "bad"), two], 100)) == [
        Chunk(3, 5, [one]),
        Chunk(5, 9, fault="bad"),
        Chunk(9, 10, [two]),
    ]


fetches = st.lists(
    st.tuples(
        st.integers(1, 3), st.sampled_from(["record", "record", "record", "marker", "bad", "gap"])
    ),
    max_size=40,
)


@given(fetches, st.integers(1, 7))
def test_chunks_cover_what_was_fetched_and_nothing_else(parts, most):
    fetched, gaps, offset = [], set(), 5
    for width, kind in parts:
        if kind == "record":
            fetched += records(*range(offset, offset + width))
        elif kind == "gap":
            gaps |= set(range(offset, offset + width))
        else:
            fetched.append(Hole(offset, offset + width, kind if kind == "bad" else ""))
        offset += width
    cut = list(chunks(fetched, most))
    covered = [offset for chunk in cut for offset in range(chunk.start, chunk.end)]
    assert covered == [number for number in range(5, offset) if number not in gaps]
    assert [record for chunk in cut for record in chunk.records] == [
        item for item in fetched if not isinstance(item, Hole)
    ]
    assert [(chunk.start, chunk.end) for chunk in cut if chunk.fault] == [
        (item.offset, item.end) for item in fetched if isinstance(item, Hole) and item.fault
    ]
    assert all(len(chunk.records) <= most for chunk in cut)
    assert not any(chunk.fault and chunk.records for chunk in cut)
