"""Properties of the fold that the guarantees rest on (DESIGN, "Mining" and "Guarantees: Miner")."""

import random

import orjson
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.judged import TICK
from streams.fold import Fold, Limits, Resume
from tests.streams.judged_log import (
    LIMITS,
    LogRecord,
    contents,
    disturbed,
    folded,
    fruitful,
    interleaved,
    numbered,
    trajectories,
    trajectory_steps,
    written,
)

seeds = st.integers(0, 2**32).map(random.Random)


@given(trajectories, seeds)
@settings(max_examples=200, deadline=None)
def test_interleaving_repetition_and_reordering_change_nothing(events, rng):
    in_order = folded(written([event for one in events for event in one]))
    shuffled = folded(written(disturbed(interleaved(events, rng), rng)))
    assert contents(shuffled) == contents(in_order)


TIGHT = Limits(gap_ms=30, idle_ms=100, age_ms=300, events=12)
"""Limits so tight that each of them closes trajectories in short logs."""


def _troubled(events, rng):
    """A log with every trouble at once.

    Repeats (of openings, too), reordering, lost events, silences, clocks that step back, ticks, and
    a judge that repeats its last second.
    """
    kept = [event for event in disturbed(events, rng) if rng.random() > 0.1]
    log, now, source = [], 0, 0
    for event in kept:
        now += rng.choice([0, 0, 1, 5, 20, 40, 110])
        time = max(0, now - rng.choice([0, 0, 0, 35]))
        log.append((time, {**event, "source_offset": source, "source_time": time}))
        source += 1
        if rng.random() < 0.3 and event["seq"] > 0:
            opening = next((e for _, e in log if e and _opens(e, event)), None)
            if opening is not None:
                log.append((time, {**opening, "source_offset": source, "source_time": time}))
                source += 1
        if rng.random() < 0.1:
            log.append((now, None))
        if rng.random() < 0.1:
            log += log[-rng.randrange(1, 4) :]
    return [
        LogRecord(offset, time, TICK if event is None else orjson.dumps(event))
        for offset, (time, event) in enumerate(log)
    ]


def _opens(opening, event):
    return opening["seq"] == 0 and opening["trajectory_id"] == event["trajectory_id"]


@given(seeds)
@settings(max_examples=1_000, deadline=None, phases=[Phase.generate])
def test_a_fold_cut_anywhere_and_resumed_gives_the_same_pairs(rng):
    log = _troubled(interleaved(fruitful(rng, rng.randrange(2, 7)), rng), rng)
    whole = folded(log, Fold(limits=TIGHT))

    cuts = sorted(rng.sample(range(len(log) + 1), min(3, len(log) + 1)))
    pairs, fold, position, acknowledged = [], Fold(limits=TIGHT), 0, 0
    for cut in cuts:
        for record in log[position:cut]:
            silent = record.offset < acknowledged
            pairs += fold.apply(record.offset, record.timestamp, record.value, silent=silent)
        point = fold.resume(next_offset=cut, acknowledged=cut)
        point = Resume.parse(point.offset, point.metadata())
        fold = Fold(limits=TIGHT, last_source=point.last_source, clock=point.clock)
        position, acknowledged = point.offset, point.acknowledged
    for record in log[position:]:
        silent = record.offset < acknowledged
        pairs += fold.apply(record.offset, record.timestamp, record.value, silent=silent)
    pairs += fold.close_all()

    assert [pair.pair_id for pair in pairs] == [pair.pair_id for pair in whole]
    assert pairs == whole


@given(trajectories, seeds)
@settings(max_examples=200, deadline=None)
def test_the_low_watermark_never_passes_an_open_trajectory_and_never_goes_back(events, rng):
    log = _troubled(interleaved(events, rng), rng)
    fold, earlier = Fold(limits=TIGHT), 0
    for record in log:
        fold.apply(record.offset, record.timestamp, record.value)
        low = fold.resume(record.offset + 1, record.offset + 1).offset
        assert earlier <= low <= record.offset + 1
        assert all(low <= one.first_offset for one in fold._open.values())
        earlier = low


@given(trajectory_steps, seeds)
@settings(max_examples=100, deadline=None)
def test_a_rejudged_second_changes_nothing(steps, rng):
    log = written(numbered("t", steps))
    cut = rng.randrange(len(log) + 1)
    back = rng.randrange(cut + 1)
    again = [*log[:cut], *log[back:]]
    shifted = [LogRecord(offset, r.timestamp, r.value) for offset, r in enumerate(again)]
    assert contents(folded(shifted)) == contents(folded(log))


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_foreign_bytes_are_counted_and_skipped(values):
    fold = Fold(limits=LIMITS)
    for offset, value in enumerate(values):
        assert fold.apply(offset, 0, value) == []
    assert fold.counts["events", "undecodable"] == len(values)
