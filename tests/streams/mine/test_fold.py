"""The fold, case by case."""

import pytest

from schemas.judged import Skipped
from streams.mine.fold import Fold, Resume
from streams.mine.sources import Source
from streams.mine.trajectories import Limits, Start
from tests.streams.fakes import LOG
from tests.streams.judged_log import (
    browse,
    contents,
    end,
    judged_value,
    numbered,
    reasoning,
    search,
)
from tests.streams.mine.partition import LIMITS, STEPS, Log


def test_pairs_come_out_when_the_trajectory_ends(log):
    *first, last = numbered("t", STEPS)
    assert [log.put(event) for event in first] == [[], [], [], []]
    (pair,) = log.put(last)
    assert (pair.query, pair.positive, pair.negatives, pair.rank) == ("q", "b", ("a",), 2)
    assert (pair.verdict, pair.reasoning_tokens, pair.outcome) == ("relevant", 7, "correct")
    assert (pair.closed_by, pair.gaps, pair.sources) == ("end", 0, (0, 4))
    assert log.fold.open_trajectories == 0


def test_an_event_of_a_trajectory_that_is_not_open_is_late(log):
    events = numbered("t", STEPS)
    log.put(events[1])
    for event in events:
        log.put(event)
    log.put(events[3])
    assert log.fold.counts["events", "late"] == 2
    assert log.fold.counts["events", "accepted"] == 5


def test_of_two_events_with_one_seq_the_first_on_the_log_wins(log):
    events = numbered("t", STEPS)
    again = numbered("t", [*STEPS[:2], reasoning("b", "irrelevant"), *STEPS[3:]])
    pairs = [pair for event in (*events[:3], again[2], *events[3:]) for pair in log.put(event)]
    assert [pair.verdict for pair in pairs] == ["relevant"]
    assert log.fold.counts["events", "repeated"] == 1


TWO_NEEDS = [
    search("q", "d1", "d2"),
    browse("d1"),
    reasoning("d1", "relevant"),
    search("r"),
    browse("d2"),
    reasoning("d2", "relevant"),
    end(),
]


@pytest.mark.parametrize("closed_by", ["end", "size"])
def test_a_repeat_of_the_opening_right_after_the_close_opens_nothing(closed_by):
    """Without the reset between them, events 0, 4 and 5 alone would give another pair."""
    log = Log(Fold(limits=Limits(events=6 if closed_by == "size" else 2_000)))
    events = numbered("t", TWO_NEEDS)
    pairs = [pair for event in events for pair in log.put(event)]
    for seq in (0, 4, 5):
        assert log.put(events[seq], at=29_999) == []
    assert log.fold.open_trajectories == 0
    assert [pair.positive for pair in pairs] == ["d1"]
    assert [pair.closed_by for pair in pairs] == [closed_by]
    assert log.fold.counts["events", "repeated"] == 1
    assert log.fold.counts["events", "late"] == (3 if closed_by == "size" else 2)


def test_a_trajectory_published_again_later_gives_equal_pairs(log):
    first, again = (
        [pair for event in numbered("t", TWO_NEEDS) for pair in log.put(event, at)]
        for at in (0, 30_000)
    )
    assert contents(first + again) == contents(first)
    assert (len(first), len(again)) == (1, 1)


def test_how_long_a_closed_trajectory_is_remembered_is_bounded_in_records_too():
    log = Log(Fold(limits=Limits(remembered_records=10)))
    for event in (*numbered("t", TWO_NEEDS), *numbered("u", TWO_NEEDS)[:3]):
        log.put(event)
    assert log.fold.resume(log.offset, log.offset).start.offset == 0
    for event in numbered("u", TWO_NEEDS)[3:]:
        log.put(event)
    assert log.fold.resume(log.offset, log.offset).start.offset == 0
    for _ in range(3):
        log.tick(0)
    assert log.fold.resume(log.offset, log.offset).start.offset == 7


def test_events_ahead_of_a_gap_are_held_until_it_is_filled(log):
    events = numbered("t", STEPS)
    order = [events[0], events[3], events[2], events[4], events[1]]
    in_order = Log()
    expected = contents(pair for event in events for pair in in_order.put(event))
    assert contents(pair for event in order for pair in log.put(event)) == expected
    assert log.fold.counts["events", "held"] == 3


def test_an_old_gap_is_passed_and_ends_a_run(log):
    events = numbered("t", [*STEPS[:2], {"type": "other", "name": "x"}, *STEPS[2:]])
    for event in (*events[:2], events[3]):
        log.put(event, at=0)
    assert log.tick(29_999) == []
    assert log.fold.counts["events", "late"] == 0
    log.tick(30_000)
    log.put(events[2], at=30_001)
    assert log.fold.counts["events", "late"] == 1
    log.put(events[4], at=30_002)
    assert log.put(events[5], at=30_003) == []
    assert log.fold.counts["browses", "unknown"] == 1
    assert log.fold.counts["gaps", "end"] == 1
    assert log.fold.counts["rank", "unknown", "2"] == 1


def test_a_gap_across_billions_of_seqs_costs_nothing(log):
    first, last = numbered("t", [search("q", "a"), end()])
    log.put(first)
    log.put(last | {"seq": 2**31 - 1})
    log.tick(40_000)
    assert log.fold.counts["closed", "end"] == 1
    assert log.fold.counts["gaps", "end"] == Limits().events


@pytest.mark.parametrize(
    ("ticks", "reason"), [([1_800_000], "idle"), ([*range(0, 21_600_001, 600_000)], "age")]
)
def test_time_closes_what_is_idle_or_old(log, ticks, reason):
    events = numbered("t", [*STEPS[:3], *[{"type": "other", "name": "x"}] * 100])
    for event in events[:3]:
        log.put(event)
    pairs = []
    for more, time in zip(events[3:], ticks, strict=False):
        if reason == "age" and time < 21_600_000:
            pairs += log.put(more, at=time)
        else:
            pairs += log.tick(time)
    assert [(pair.closed_by, pair.outcome) for pair in pairs] == [(reason, "unknown")]


def test_a_repeat_does_not_keep_a_trajectory_from_being_idle(log):
    events = numbered("t", STEPS[:3])
    for event in events:
        log.put(event)
    log.put(events[1], at=1_000_000)
    assert [pair.closed_by for pair in log.tick(1_800_000)] == ["idle"]


def test_a_trajectory_over_its_size_is_closed_before_the_event_that_is_too_much():
    log = Log(Fold(limits=Limits(events=4)))
    pairs = [pair for event in numbered("t", STEPS) for pair in log.put(event)]
    assert [(pair.closed_by, pair.outcome) for pair in pairs] == [("size", "unknown")]
    assert log.fold.counts["events", "late"] == 1


def test_log_time_never_runs_backwards(log):
    log.put(numbered("t", STEPS)[0], at=1_000)
    log.tick(500)
    assert log.fold.clock == 1_000


def test_what_a_restarted_judge_repeats_is_dropped_also_by_a_new_owner(log):
    first, second = numbered("t", STEPS), numbered("u", STEPS)
    log.put(second[0])
    for event in first:
        log.put(event)
    late_opening = numbered("v", STEPS)[0]
    log.put(late_opening)
    for event in second[1:]:
        log.put(event)
    log.tick(30_000)
    point = log.fold.resume(log.offset, log.offset)
    assert point.start == Start(6, (Source(LOG, 0, 5),))
    owner = Fold(limits=LIMITS, start=point.start)
    repeated = judged_value(first[0], source=1, time=0)
    owner.apply(7, 0, repeated)
    assert owner.open_trajectories == 0
    assert owner.counts["events", "rejudged"] == 1


def test_silent_records_give_nothing_and_are_not_counted():
    fold = Fold(limits=LIMITS)
    for offset, event in enumerate(numbered("t", STEPS)):
        value = judged_value(event, offset, time=0)
        assert fold.apply(offset, 0, value, silent=True) == []
    assert not fold.counts


def test_the_low_watermark_is_the_opening_of_the_oldest_open_trajectory(log):
    first, second = numbered("t", STEPS), numbered("u", STEPS)
    for event in (first[0], second[0], *first[1:]):
        log.put(event)
    log.tick(30_000)
    assert log.fold.resume(log.offset, 3) == Resume(Start(1, (Source(LOG, 0, 0),)), 3)
    for event in second[1:]:
        log.put(event, at=30_000)
    log.tick(60_000)
    assert log.fold.resume(log.offset, 9).start.offset == log.offset


def test_the_low_watermark_stays_before_a_closed_trajectory_for_the_gap_window(log):
    for event in numbered("t", STEPS):
        log.put(event, at=500)
    log.tick(30_499)
    assert log.fold.resume(log.offset, log.offset).start.offset == 0
    log.tick(30_500)
    assert log.fold.resume(log.offset, log.offset).start.offset == log.offset


@pytest.mark.parametrize("repeated", ["while open", "after the close"])
def test_the_watermark_stays_before_a_trajectory_whose_opening_was_repeated(log, repeated):
    first, second = numbered("t", STEPS), numbered("u", STEPS)
    rest = [first[0], *first[1:]] if repeated == "while open" else [*first[1:], first[0]]
    for event in (first[0], second[0], *rest):
        log.put(event)
    log.tick(30_000)
    assert log.fold.resume(log.offset, log.offset).start.offset == 0
    for event in second[1:]:
        log.put(event, at=30_000)
    log.tick(60_000)
    assert log.fold.resume(log.offset, log.offset).start.offset == log.offset


@pytest.mark.parametrize(
    "metadata",
    [None, "", "0;", "3;1;1", "[1]", "[1,2,[[]]]", '[1,2,[["a",0]]]', '["1",2,[]]', "[1,2,[]]x"],
)
def test_a_commit_without_our_metadata_makes_nothing_silent(metadata):
    assert Resume.parse(7, metadata) == Resume(Start(7), 7)


def test_a_commit_is_read_as_it_was_written():
    sources = (Source('a;, "é', 0, 7), Source("b", 1, 2**63 - 1))
    point = Resume(Start(3, sources, clock=12), 9)
    assert Resume.parse(3, point.metadata()) == point


def test_what_never_ended_is_closed_when_all_time_has_passed():
    log = Log()
    for event in numbered("t", STEPS[:3]):
        log.put(event)
    assert [pair.closed_by for pair in log.fold.close_all()] == ["idle"]


def test_a_jump_that_names_nothing_is_refused_and_changes_nothing(log):
    """Case: a judged event with source_offset 2^62 silenced its partition."""
    first, *rest = numbered("t", STEPS)
    log.put(first)
    forged = judged_value(numbered("forged", STEPS)[0], source=2**62, time=0)
    assert log.raw(forged) == []
    assert (log.fold.refusal.got, log.fold.refusal.wanted) == (2**62, 1)
    assert log.fold.open_trajectories == 1
    pairs = [pair for event in rest for pair in log.put(event)]
    assert [pair.positive for pair in pairs] == ["b"]
    assert log.fold.counts["events", "refused"] == 1
    assert log.fold.refusal is None


def test_a_refusal_stays_until_its_source_goes_on(log):
    log.put(numbered("t", STEPS)[0])
    log.source += 1
    for event in numbered("u", STEPS):
        log.put(event)
    assert log.fold.counts["events", "refused"] == 5
    log.raw(judged_value(numbered("v", STEPS)[0], 7, 0, source_topic_id="forged"))
    assert log.fold.refusal is not None
    log.raw(judged_value(numbered("w", STEPS)[0], log.source, 0, skipped_from=0))
    assert log.fold.refusal is None


def test_a_forged_topic_neither_ends_nor_repeats_the_real_one(log):
    first, *rest = numbered("t", STEPS)
    log.put(first)
    for number in range(5):
        forged = numbered(f"forged {number}", STEPS)[0]
        log.raw(judged_value(forged, 2**62, 0, source_topic_id=f"forged {number % 2}"))
    log.raw(judged_value(rest[0], 0, 0))
    assert log.fold.counts["events", "rejudged"] == 1 + 3
    pairs = [pair for event in rest for pair in log.put(event)]
    assert [pair.positive for pair in pairs] == ["b"]


def test_a_topic_that_was_created_again_is_read_from_its_beginning(log):
    for event in numbered("t", STEPS):
        log.put(event)
    pairs = []
    for offset, event in enumerate(numbered("u", STEPS)):
        pairs += log.raw(judged_value(event, offset, 0, source_topic_id="log-2"))
    assert [pair.trajectory_id for pair in pairs] == ["u"]


def test_skipped_offsets_move_their_source_without_an_event(log):
    first, *rest = numbered("t", STEPS)
    log.put(first)
    skipped = Skipped(
        source_topic_id=LOG, source_partition=0, source_offset=6, skipped_from=1
    ).to_json()
    assert log.raw(skipped) == []
    log.source = 7
    assert [pair.positive for event in rest for pair in log.put(event)] == ["b"]
    assert log.raw(skipped) == []
    assert log.fold.counts["events", "rejudged"] == 1


def test_behind_a_hole_in_judged_events_a_source_goes_on_anywhere(log):
    for event in numbered("t", STEPS):
        log.put(event)
    log.source += 90
    log.fold.hole()
    pairs = [pair for event in numbered("u", STEPS) for pair in log.put(event)]
    assert [pair.trajectory_id for pair in pairs] == ["u"]


def test_a_forged_time_lets_no_more_time_pass_than_its_append(log):
    first, *rest = numbered("t", STEPS)
    log.put(first)
    forged = judged_value(numbered("f", STEPS)[0], 7, 2**62, source_topic_id="forged")
    log.raw(forged, at=1_000)
    assert log.fold.clock == 1_000
    assert [pair.closed_by for event in rest for pair in log.put(event, at=1_000)] == ["end"]
