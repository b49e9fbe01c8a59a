"""The reasons for pairs are those of the miner."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.settings import Settings
from streams.mine.explaining import explain
from streams.mine.fold import Fold
from tests.effort import examples
from tests.streams.judged_log import (
    disturbed,
    fruitful,
    interleaved,
    numbered,
    trajectories,
    written,
)
from tests.streams.mine.partition import STEPS

seeds = st.integers(0, 2**32).map(random.Random)


def explained(log, pair, settings):
    """The decision on the pair, from the records of its sources alone."""
    first, last = pair.sources
    records = [one for one in log if first <= one.offset <= last]
    found = explain(records, pair.trajectory_id, settings)
    [decision] = [
        (decision, again)
        for decision, again in found.decisions
        if again is not None and again.pair_id == pair.pair_id
    ]
    return found.events, *decision


@pytest.mark.parametrize("profile", ["reference", "paper"])
def test_20_drawn_pairs_are_explained_as_the_miner_made_them(profile):
    rng = random.Random(7)
    log = written(disturbed(interleaved(fruitful(rng, 30), rng), rng))
    configured = Settings(profile=profile)
    fold = Fold.of(configured)
    pairs = [
        pair for record in log for pair in fold.apply(record.offset, record.timestamp, record.value)
    ] + fold.close_all()
    for pair in rng.sample(pairs, 20):
        events, decision, again = explained(log, pair, configured)
        assert again.content().model_dump(exclude={"closed_by"}) == pair.content().model_dump(
            exclude={"closed_by"}
        )
        assert {event.trajectory_id for _, event, _ in events} == {pair.trajectory_id}
        assert decision.role_of(pair.positive) == "positive"
        rules = [decision.role_of(doc_id) for doc_id in pair.negatives]
        assert all(rule.startswith("rejected") for rule in rules[: pair.rejected])


@given(trajectories, seeds)
@settings(max_examples=examples(100), deadline=None)
def test_every_pair_of_a_log_is_explained(events, rng):
    log = written(interleaved(events, rng))
    fold = Fold.of(Settings())
    for pair in [
        pair for record in log for pair in fold.apply(record.offset, record.timestamp, record.value)
    ]:
        _, _, again = explained(log, pair, Settings())
        assert again == pair


def test_repeats_and_late_events_are_named():
    events = numbered("t", STEPS)
    log = written([events[0], events[1], events[1], events[2], events[4], *events[3:]])
    found = explain(log, "t", Settings())
    assert [(one.offset, one.result) for one in found.events] == [
        (0, "accepted"),
        (1, "accepted"),
        (2, "repeated"),
        (3, "accepted"),
        (4, "held"),
        (5, "accepted"),
        (6, "late"),
    ]
