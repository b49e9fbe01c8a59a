"""Properties of the fold that the guarantees rest on."""

import random
from bisect import bisect_left

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.judged import Skipped, Tick
from streams.mine.fold import Fold, Resume
from streams.mine.trajectories import Limits, Start
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
    judged_value,
    numbered,
    trajectories,
    trajectory_steps,
    unnumbered,
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


class TroubledLog:
    """A partition of judged-events with every trouble at once.

    Repeats (of openings, too), reordering, lost events, silences, clocks that step back, ticks
    (late ones, too), a judge that repeats its last second, source topics that are created again,
    skipped offsets, forged records, and records of judged-events itself that are gone.
    """

    def __init__(self, rng):
        self.rng = rng
        self.records = []
        self.events = []
        self.offset = self.source = self.now = self.topics = 0
        self.skipped = 0
        self.pace = rng.choice([[0, 0, 1, 5, 20, 40, 110], [0, 5, 10, 20, 30]])

    def put(self, value, time):
        self.records.append(LogRecord(self.offset, time, value))
        self.offset += 1

    def judged(self, event, time):
        named = {"source_topic_id": f"topic-{self.topics}"}
        if self.skipped:
            named["skipped_from"] = self.source - self.skipped
        self.put(judged_value(event, self.source, time, **named), time)
        self.source, self.skipped = self.source + 1, 0

    def event(self, event):
        rng = self.rng
        self.now += rng.choice(self.pace)
        self.events.append(event)
        time = max(0, self.now - rng.choice([0, 0, 0, 35]))
        self.judged(event, time)
        if rng.random() < 0.3:
            for repeat in _some_again(event, self.events, rng):
                self.judged(repeat, time)
        for trouble in (self.tick, self.second_again, self.skip, self.forge, self.recreate):
            if rng.random() < 0.1:
                trouble()
        if rng.random() < 0.03:
            # Records of judged-events that are gone; a judge before the hole wrote them.
            self.offset += rng.randrange(1, 4)
            self.source += rng.randrange(4)

    def tick(self):
        late = self.rng.choice([0, 0, 50])
        self.put(Tick(as_of=self.now).to_json(), self.now + late)

    def second_again(self):
        for record in self.records[-self.rng.randrange(1, 4) :]:
            self.put(record.value, record.timestamp)

    def skip(self):
        more = self.rng.randrange(1, 4)
        self.source, self.skipped = self.source + more, self.skipped + more
        if self.rng.random() < 0.5:
            self.put(
                Skipped(
                    source_topic_id=f"topic-{self.topics}",
                    source_partition=0,
                    source_offset=self.source - 1,
                    skipped_from=self.source - self.skipped,
                ).to_json(),
                self.now,
            )
            self.skipped = 0

    def forge(self):
        rng = self.rng
        forged = {"source_topic_id": rng.choice(["topic-0", "forged-1", "forged-2", "forged-3"])}
        if rng.random() < 0.2:
            forged["skipped_from"] = 0
        offset, time = rng.choice([0, 3, 2**62]), self.now + rng.choice([0, 2**40])
        self.put(judged_value(rng.choice(self.events), offset, time, **forged), self.now)

    def recreate(self):
        self.topics += 1
        self.source, self.skipped = self.rng.choice([0, 0, 7]), 0


def _troubled(events, rng):
    log = TroubledLog(rng)
    for event in disturbed(events, rng):
        if rng.random() > 0.1:
            log.event(event)
    return log.records


def _some_again(last, log, rng):
    """Up to four events of an event's trajectory, in order; of a numbered one also its opening."""
    same = [event for event in log if event["trajectory_id"] == last["trajectory_id"]]
    if "seq" not in last:
        places = rng.sample(range(len(same)), rng.randrange(min(4, len(same)) + 1))
        return [same[place] for place in sorted(places)]
    others = {event["seq"]: event for event in same if "seq" in event}
    opening = others.pop(0, None)
    if opening is None:
        return []
    more = rng.sample(sorted(others), rng.randrange(min(3, len(others)) + 1))
    return [opening, *(others[seq] for seq in sorted(more))]


def _of_both_kinds(trajectories, rng):
    """Some of them without numbers, and some of those with the id of another trajectory."""
    return [
        _with_sessions(unnumbered(one, rng.choice([None, None, "t0", "t1"])), rng)
        if rng.random() < 0.5
        else one
        for one in trajectories
    ]


def _with_sessions(events, rng):
    """Ends of sessions at random places."""
    for number in range(rng.choice([0, 0, 1, 3])):
        same = {name: events[0][name] for name in ("trajectory_id", "agent", "occurred_at")}
        ended = same | {"type": "other", "name": "session-end", "event_id": f"ended-{number}"}
        events.insert(rng.randrange(1, len(events) + 1), ended)
    return events


class Miner:
    """Applies a log through crashes, as successive miners do; keeps the pairs by record."""

    def __init__(self, log):
        self.log = log
        self.pairs = {}
        self.resume_from(Resume(Start(0), 0))

    def resume_from(self, point):
        point = Resume.parse(point.start.offset, point.metadata())
        self.fold = Fold(limits=TIGHT, start=point.start)
        self.next, self.acknowledged = point.start.offset, point.acknowledged
        self.place = bisect_left(self.log, point.start.offset, key=lambda record: record.offset)

    def work(self, until):
        """Apply the log up to a place; missing offsets are a hole."""
        for record in self.log[self.place : until]:
            if record.offset != self.next:
                self.fold.hole()
            silent = record.offset < self.acknowledged
            made = self.fold.apply(record.offset, record.timestamp, record.value, silent=silent)
            if silent:
                assert made == []
            else:
                assert self.pairs.setdefault(record.offset, made) == made
            self.next, self.place = record.offset + 1, self.place + 1

    def checkpoint(self):
        return self.fold.resume(self.next, max(self.next, self.acknowledged))


@given(seeds)
@settings(max_examples=examples(1_000), deadline=None, phases=[Phase.generate])
def test_a_fold_cut_anywhere_and_resumed_gives_the_same_pairs(rng):
    """Also from a checkpoint before the newest, as after a crash between acknowledgement and
    commit; also while it still folds again what was done before.
    """
    events = _of_both_kinds(fruitful(rng, rng.randrange(2, 7)), rng)
    log = _troubled(interleaved(events, rng), rng)
    whole, miner = Miner(log), Miner(log)
    whole.work(len(log))
    checkpoints = [Resume(Start(0), 0)]
    for _ in range(rng.randrange(1, 5)):
        for cut in sorted(rng.choices(range(miner.place, len(log) + 1), k=rng.randrange(1, 4))):
            miner.work(cut)
            checkpoints.append(miner.checkpoint())
        miner.work(rng.randrange(miner.place, len(log) + 1))
        lost = rng.choice([0, 0, 1, 2])
        del checkpoints[max(1, len(checkpoints) - lost) :]
        miner.resume_from(checkpoints[-1])
    miner.work(len(log))
    assert miner.pairs == whole.pairs
    assert miner.fold.close_all() == whole.fold.close_all()


_NAMES = {"pair_id", "browse_seq", "browse_event_id"}


@given(trajectories, seeds)
@settings(max_examples=examples(200), deadline=None)
def test_unnumbered_trajectories_give_the_pairs_of_numbered_ones(events, rng):
    """In any interleaving, with events repeated before the end of their trajectory.

    Events before the first search are dropped, because only a search opens a trajectory.
    """
    opened = [_from_first_search(one) for one in events]
    numbers = {event["event_id"]: event["seq"] for one in opened for event in one}
    log = interleaved([unnumbered(one) for one in events], rng)
    for place in sorted(rng.sample(range(len(log)), rng.randrange(len(log))), reverse=True):
        event = log[place]
        if event["event_id"] in numbers and event["type"] != "end":
            name = event["trajectory_id"]
            last = max(at for at, one in enumerate(log) if one["trajectory_id"] == name)
            log.insert(rng.randrange(place + 1, last + 1), event)
    found = folded(written(log))
    assert len({pair.pair_id for pair in found}) == len(found)
    wanted = folded(written([event for one in opened for event in one]))
    assert {
        (pair.trajectory_id, numbers[pair.browse_event_id]): _without_names(pair) for pair in found
    } == {(pair.trajectory_id, pair.browse_seq): _without_names(pair) for pair in wanted}


def _from_first_search(events):
    """A numbered trajectory without what stands before its first search."""
    places = [event["seq"] for event in events if event["type"] == "search"]
    first = min(places, default=len(events))
    return [event | {"seq": event["seq"] - first} for event in events[first:]]


def _without_names(pair):
    return pair.content().model_dump(exclude=_NAMES)


@given(trajectories, seeds)
@settings(max_examples=examples(200), deadline=None)
def test_the_low_watermark_never_passes_an_open_trajectory_and_never_goes_back(events, rng):
    log = _troubled(interleaved(_of_both_kinds(events, rng), rng), rng)
    miner, earlier = Miner(log), 0
    while miner.place < len(log):
        miner.work(miner.place + 1)
        low = miner.checkpoint().start.offset
        assert earlier <= low <= miner.next
        assert all(low <= one.span.start.offset for one in miner.fold._open.values())
        earlier = low


@given(trajectories, seeds)
@settings(max_examples=examples(200), deadline=None)
def test_skips_forged_jumps_and_a_topic_created_again_change_no_pair(events, rng):
    log = TroubledLog(rng)
    for one in events:
        for event in one:
            if rng.random() < 0.2:
                log.skip()
            log.judged(event, 0)
            if rng.random() < 0.2:
                forged = event | {"trajectory_id": "forged", "seq": 0}
                topic = {"source_topic_id": f"topic-{log.topics}"}
                log.put(judged_value(forged, 2**62, 2**62, **topic), 0)
        if rng.random() < 0.5:
            log.recreate()
    in_order = folded(written([event for one in events for event in one]))
    assert contents(folded(log.records)) == contents(in_order)


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
