"""Where a fold starts again, after trajectories closed."""

from streams.mine.trajectories import ClosedTrajectories, Limits, Span, Start


def closed(start: int, last_opening: int) -> Span:
    return Span(Start(start, start - 1, 0), last_opening, last_offset=last_opening, touched=0)


def test_a_start_that_goes_back_for_one_goes_back_for_all_whose_repeats_it_then_reads():
    """Right before 12 it reads the repeat at 22 of what opened at 3, so it goes back to 3; there it
    reads the repeat at 5 of what opened at 0.
    """
    known = ClosedTrajectories(Limits(gap_ms=30, remembered_records=25))
    known.add(("a", False), closed(0, 5), offset=8, clock=156)
    known.add(("b", False), closed(3, 22), offset=24, clock=300)

    assert known.start(Start(12, 11, 216), next_offset=33, clock=338).offset == 0
    assert known.start(Start(23, 22, 300), next_offset=33, clock=338).offset == 23
    assert known.start(Start(23, 22, 300), next_offset=34, clock=338).offset == 23
