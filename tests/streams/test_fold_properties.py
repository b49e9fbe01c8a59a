"""Properties of the fold that the guarantees rest on."""

import random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.judged import Tick
from streams.mine.fold import Fold, Limits, Resume
from tests.effort import examples
from tests.streams.judged_log import (
    LIMITS,
    LogRecord,
    contents,
    disturbed,
    folded,
    fruitful,
    interleaved,
    judged_record,
    numbered,
    trajectories,
    trajectory_steps,
    written,
)

seeds = st.integers(0, 2**32).map(random.Random)


@given(trajectories, seeds)
@settings(max_examples=examples(200), deadline=None)
def test_interleaving_repetition_and_reordering_change_nothing(events, rng):
    in_order = folded(written([event for one in events for event in one]))
    shuffled = folded(written(disturbed(interleaved(events, rng), rng)))
    assert contents(shuffled) == contents(in_order)


@given(trajectories, seeds)
@settings(max_examples=examples(100), deadline=None)
def test_ticks_change_nothing_however_late_they_reach_the_log(events, rng):
    in_order = folded(written([event for one in events for event in one]))
    log = []
    for now, event in enumerate(disturbed(interleaved(events, rng), rng)):
        log.append(judged_record(len(log), event, source=now, time=now))
        if rng.random() < 0.3:
            late = rng.choice([0, 1, LIMITS.gap_ms, 10 * LIMITS.age_ms])
            log.append(LogRecord(len(log), now + late, Tick(as_of=now).to_json()))
    assert contents(folded(log)) == contents(in_order)


@given(trajectories, seeds)
@settings(max_examples=examples(100), deadline=None)
def test_trajectories_published_whole_again_at_any_time_change_nothing(events, rng):
    first = interleaved(events, rng)
    again = interleaved(rng.sample(events, rng.randrange(1, len(events) + 1)), rng)
    log, now = [], 0
    for event in first + again:
        if len(log) == len(first):
            now += rng.choice([0, LIMITS.gap_ms - 1, LIMITS.gap_ms, 10 * LIMITS.idle_ms])
        now += rng.choice([0, 1])
        log.append(judged_record(len(log), event, source=len(log), time=now))
    assert contents(folded(log)) == contents(folded(written(first)))


TIGHT = Limits(gap_ms=30, idle_ms=100, age_ms=300, events=12, remembered_records=25)
"""Limits so tight that each of them closes, or forgets, trajectories in short logs."""


def _troubled(events, rng):
    """A log with every trouble at once.

    Repeats (of openings, too), reordering, lost events, silences, clocks that step back, ticks
    (late ones, too), and a judge that repeats its last second.
    """
    kept = [event for event in disturbed(events, rng) if rng.random() > 0.1]
    log, now, source = [], 0, 0
    for event in kept:
        now += rng.choice([0, 0, 1, 5, 20, 40, 110])
        time = max(0, now - rng.choice([0, 0, 0, 35]))
        log.append((time, source, event))
        source += 1
        if rng.random() < 0.3:
            for repeat in _some_again(event, log, rng):
                log.append((time, source, repeat))
                source += 1
        if rng.random() < 0.1:
            log.append((now + rng.choice([0, 0, 50]), now, None))
        if rng.random() < 0.1:
            log += log[-rng.randrange(1, 4) :]
    return [
        LogRecord(offset, time, Tick(as_of=source).to_json())
        if event is None
        else judged_record(offset, event, source, time)
        for offset, (time, source, event) in enumerate(log)
    ]


def _some_again(last, log, rng):
    """The opening of an event's trajectory and up to three more events of it, in order."""
    others = {
        event["seq"]: event
        for _, _, event in log
        if event and event["trajectory_id"] == last["trajectory_id"]
    }
    opening = others.pop(0, None)
    if opening is None:
        return []
    more = rng.sample(sorted(others), rng.randrange(min(3, len(others)) + 1))
    return [opening, *(others[seq] for seq in sorted(more))]


class Miner:
    """Folds a log through crashes, as a miner and its heirs do; keeps the pairs by record."""

    def __init__(self, log):
        self.log = log
        self.pairs = {}
        self.resume_from(Resume(0, 0))

    def resume_from(self, point):
        point = Resume.parse(point.offset, point.metadata())
        self.fold = Fold(limits=TIGHT, last_source=point.last_source, clock=point.clock)
        self.next, self.acknowledged = point.offset, point.acknowledged

    def work(self, until):
        for record in self.log[self.next : until]:
            silent = record.offset < self.acknowledged
            made = self.fold.apply(record.offset, record.timestamp, record.value, silent=silent)
            if silent:
                assert made == []
            else:
                assert self.pairs.setdefault(record.offset, made) == made
            self.next = record.offset + 1

    def checkpoint(self):
        return self.fold.resume(self.next, max(self.next, self.acknowledged))


@given(seeds)
@settings(max_examples=examples(1_000), deadline=None, phases=[Phase.generate])
def test_a_fold_cut_anywhere_and_resumed_gives_the_same_pairs(rng):
    """Also from a checkpoint before the newest, as after a crash between acknowledgement and
    commit; also while it still folds again what was done before.
    """
    log = _troubled(interleaved(fruitful(rng, rng.randrange(2, 7)), rng), rng)
    whole, miner = Miner(log), Miner(log)
    whole.work(len(log))
    checkpoints = [Resume(0, 0)]
    for _ in range(rng.randrange(1, 5)):
        for cut in sorted(rng.choices(range(miner.next, len(log) + 1), k=rng.randrange(1, 4))):
            miner.work(cut)
            checkpoints.append(miner.checkpoint())
        miner.work(rng.randrange(miner.next, len(log) + 1))
        lost = rng.choice([0, 0, 1, 2])
        del checkpoints[max(1, len(checkpoints) - lost) :]
        miner.resume_from(checkpoints[-1])
    miner.work(len(log))
    assert miner.pairs == whole.pairs
    assert miner.fold.close_all() == whole.fold.close_all()


@given(trajectories, seeds)
@settings(max_examples=examples(200), deadline=None)
def test_the_low_watermark_never_passes_an_open_trajectory_and_never_goes_back(events, rng):
    log = _troubled(interleaved(events, rng), rng)
    fold, earlier = Fold(limits=TIGHT), 0
    for record in log:
        fold.apply(record.offset, record.timestamp, record.value)
        low = fold.resume(record.offset + 1, record.offset + 1).offset
        assert earlier <= low <= record.offset + 1
        assert all(low <= one.start.offset for one in fold._open.values())
        earlier = low


@given(trajectory_steps, seeds)
@settings(max_examples=examples(100), deadline=None)
def test_a_rejudged_second_changes_nothing(steps, rng):
    log = written(numbered("t", steps))
    cut = rng.randrange(len(log) + 1)
    back = rng.randrange(cut + 1)
    again = [*log[:cut], *log[back:]]
    shifted = [LogRecord(offset, r.timestamp, r.value) for offset, r in enumerate(again)]
    assert contents(folded(shifted)) == contents(folded(log))


@given(st.lists(st.binary(max_size=40), max_size=10))
@settings(max_examples=examples(100), deadline=None)
def test_foreign_bytes_are_counted_and_skipped(values):
    fold = Fold(limits=LIMITS)
    for offset, value in enumerate(values):
        assert fold.apply(offset, 0, value) == []
    assert fold.counts["events", "undecodable"] == len(values)
