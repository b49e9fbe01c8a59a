"""Unnumbered trajectories in the fold, case by case."""

from streams.mine.fold import Fold
from streams.mine.trajectories import Limits
from tests.streams.judged_log import browse, numbered, reasoning, search, unnumbered
from tests.streams.mine.partition import STEPS, Log

TASK = unnumbered(numbered("t", STEPS))


def test_an_unnumbered_trajectory_is_in_the_order_of_its_log(log):
    pairs = [pair for event in TASK for pair in log.put(event)]
    assert [(pair.query, pair.positive, pair.negatives) for pair in pairs] == [("q", "b", ("a",))]
    assert (pairs[0].browse_event_id, pairs[0].browse_seq) == ("t-1", None)
    assert (pairs[0].verdict, pairs[0].reasoning_tokens, pairs[0].closed_by) == (
        "relevant",
        7,
        "end",
    )


def test_only_a_search_opens_an_unnumbered_trajectory(log):
    for event in TASK[1:]:
        log.put(event)
    assert log.fold.open_trajectories == 0
    assert log.fold.counts["events", "late"] == 4


def test_an_event_whose_id_an_unnumbered_trajectory_has_is_a_repeat(log):
    second = search("r", "c") | {"query": "other"}
    order = [*TASK[:3], TASK[1], TASK[0], TASK[0] | second, *TASK[3:]]
    pairs = [pair for event in order for pair in log.put(event)]
    assert [(pair.query, pair.verdict) for pair in pairs] == [("q", "relevant")]
    assert log.fold.counts["events", "repeated"] == 3


def test_a_search_with_a_closed_id_opens_a_trajectory_with_pairs_of_its_own(log):
    again = [event | {"event_id": f"again-{event['event_id']}"} for event in TASK]
    first, second = (
        [pair for event in events for pair in log.put(event)] for events in (TASK, again)
    )
    assert [pair.positive for pair in first + second] == ["b", "b"]
    assert first[0].pair_id != second[0].pair_id
    assert log.fold.counts["closed", "end"] == 2


def test_only_silence_closes_an_unnumbered_trajectory_that_does_not_end(log):
    for at in range(0, 30_000_000, 1_700_000):
        assert log.put(TASK[0] | {"event_id": str(at)}, at) == []
    for event in TASK[1:3]:
        assert log.put(event, at) == []
    assert log.tick(at + 1_799_999) == []
    assert [pair.closed_by for pair in log.tick(at + 1_800_000)] == ["idle"]


def test_the_end_of_a_session_shortens_the_idle_time_until_the_next_event(log):
    left = {key: value for key, value in TASK[0].items() if key not in ("query", "hits")}
    left |= {"type": "other", "name": "session-end"}
    log.put(TASK[0])
    log.put(left | {"event_id": "1"}, at=1_000)
    for event in TASK[1:3]:
        log.put(event, at=300_999)
    assert log.tick(2_100_998) == []
    log.put(left | {"event_id": "2"}, at=2_100_998)
    log.put(left | {"event_id": "2"}, at=2_100_998)
    assert log.tick(2_400_997) == []
    # Between the browse and its reasoning, sessions are no step.
    [pair] = log.tick(2_400_998)
    assert (pair.positive, pair.verdict, pair.closed_by) == ("b", "relevant", "idle")
    log.put(left | {"event_id": "3"})
    assert log.fold.open_trajectories == 0


def test_trajectories_that_can_give_no_pair_are_counted_for_their_agent(log):
    agent = TASK[0]["agent"]["name"]
    for events in (TASK[:1] + TASK[-1:], TASK[1:2], numbered("n", STEPS)[:1]):
        for event in events:
            log.put(event)
    log.put(numbered("m", [browse("b"), STEPS[-1]])[0])
    log.fold.close_all()
    assert log.fold.counts["incomplete", "no browse", agent] == 2
    assert log.fold.counts["incomplete", "no search", agent] == 2
    for event in TASK:
        log.put(event | {"event_id": f"{event['event_id']} again"})
    assert log.fold.counts["incomplete", "no browse", agent] == 2


def test_every_event_keeps_an_unnumbered_trajectory_from_being_idle():
    """Also a repeat and one above the limit: a fold that starts later recognises neither."""
    log = Log(Fold(limits=Limits(events=3)))
    for event in TASK[:3]:
        log.put(event)
    log.put(TASK[1], at=1_000_000)
    log.put(TASK[3], at=2_000_000)
    assert log.fold.counts["events", "repeated"] == log.fold.counts["events", "oversize"] == 1
    assert log.tick(3_799_999) == []
    assert [pair.closed_by for pair in log.tick(3_800_000)] == ["idle"]


def test_an_unnumbered_trajectory_over_its_size_drops_events_until_its_end():
    log = Log(Fold(limits=Limits(events=3)))
    more = [search("r", "c"), browse("c"), reasoning("c", "relevant")]
    extra = unnumbered(numbered("t", [*STEPS[:3], *more]))[3:]
    pairs = [pair for event in (*TASK[:3], *extra, TASK[-1]) for pair in log.put(event)]
    assert [(pair.positive, pair.closed_by, pair.outcome) for pair in pairs] == [
        ("b", "end", "correct")
    ]
    assert log.fold.counts["events", "oversize"] == 3


def test_a_numbered_and_an_unnumbered_trajectory_of_one_id_are_two(log):
    events = [event for both in zip(numbered("t", STEPS), TASK, strict=True) for event in both]
    pairs = [pair for event in events for pair in log.put(event)]
    assert [(pair.browse_seq, pair.browse_event_id) for pair in pairs] == [(1, None), (None, "t-1")]


def test_the_low_watermark_is_the_search_that_opened_an_unnumbered_trajectory(log):
    log.put(numbered("u", STEPS)[1])
    log.put(TASK[0])
    for event in TASK[1:-1]:
        log.put(event)
    assert log.fold.resume(log.offset, log.offset).start.offset == 1
    log.put(TASK[-1])
    assert log.fold.resume(log.offset, log.offset).start.offset == log.offset
