"""The guard over offsets, over every way that a log and a consumer can disagree."""

from hypothesis import given
from hypothesis import strategies as st

from streams.loop.records import Continuity


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


def test_another_hole_is_sought_anew():
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
