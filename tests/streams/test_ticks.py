"""A tick has the time until which everything was judged, however late it is appended."""

import asyncio
import time

from retrail_runtime.retry import Deadline
from schemas.judged import Tick, adapter
from schemas.settings import Settings
from schemas.topics import Topics
from streams.judge.worker import JudgeTask
from streams.loop.worker import Worker
from streams.mine.fold import Fold
from streams.mine.trajectories import Limits
from tests.streams.fakes import FakeRecord, Source, Tape, assignment
from tests.streams.judged_log import browse, end, judged_record, numbered, reasoning, search
from tests.streams.trajectories import trajectory

LIMITS = Limits(gap_ms=30_000, idle_ms=60_000)
EVENTS = numbered("t", [search("q", "a"), browse("a"), reasoning("a", "relevant"), end()])


def test_a_tick_that_was_held_up_passes_no_gap_whose_event_came_in_time():
    """Decided at 10 s, appended at 90 s; the missing event was on the source's log at 20 s."""
    fold = Fold(limits=LIMITS)
    first, missing, *ahead = EVENTS
    for offset, event in enumerate([first, *ahead]):
        record = judged_record(offset, event, source=offset, time=0)
        fold.apply(offset, record.timestamp, record.value)
    assert fold.apply(3, 90_000, Tick(as_of=10_000).to_json()) == []
    record = judged_record(4, missing, source=3, time=20_000)
    (pair,) = fold.apply(4, 90_001, record.value)
    assert (pair.closed_by, pair.gaps, pair.positive) == ("end", 0, "a")


def test_a_tick_that_was_held_up_closes_no_trajectory_that_goes_on():
    fold = Fold(limits=LIMITS)
    for event in EVENTS[:2]:
        fold.apply(event["seq"], 0, judged_record(0, event, source=event["seq"], time=0).value)
    fold.apply(2, 600_000, Tick(as_of=10_000).to_json())
    assert fold.open_trajectories == 1
    assert fold.resume(3, 3).start.offset == 0


def test_a_tick_of_a_clock_that_is_ahead_counts_from_its_append():
    fold = Fold(limits=LIMITS)
    fold.apply(0, 500, Tick(as_of=90_000).to_json())
    assert fold.clock == 500


def test_a_tick_without_its_time_counts_from_its_append():
    fold = Fold(limits=LIMITS)
    fold.apply(0, 500, Tick().to_json())
    assert fold.clock == 500


def test_a_tick_has_the_time_before_the_ends_were_read(monkeypatch):
    """Not when it had looked: what is appended between the two may not have been seen."""
    monkeypatch.setattr("streams.loop.worker.WATCH_SECONDS", 0.01)
    tape, source = Tape(), Source(seconds=0.05)

    def make_task(assigned):
        channels = assignment(assigned.partition, assigned.start, tape)
        return JudgeTask(channels, Topics.of(Settings()), None, 1000)

    async def scenario():
        worker = Worker("source", make_task, 1)
        worker.app = source
        await worker.assigned(frozenset([0]))
        watching = asyncio.create_task(worker.keep_watching())
        await asyncio.wait_for(tape.written.wait(), 10)
        watching.cancel()
        await worker._slots[0].task.finish(Deadline(1))

    began = time.time() * 1000
    asyncio.run(scenario())
    tick = adapter.validate_json(tape.values[0])
    assert began - 1 <= tick.as_of <= source.answered[0] - 45


def test_after_a_long_silence_there_is_one_last_tick_until_the_next_event():
    """Silence counts from the append time of the last record; without one, from the start."""

    async def scenario():
        tape = Tape()
        made = assignment(0, None, tape)
        task = JudgeTask(made, Topics.of(Settings()), None, 60_000)

        async def ticks(*times):
            before = len(tape.values)
            for at in times:
                task.caught_up(at)
                await task._judged.acknowledged()
            return [adapter.validate_json(value).as_of for value in tape.values[before:]]

        assert await ticks(5_000, 64_999, 65_000, 66_000, 900_000) == [5_000, 64_999, 65_000]
        event = trajectory("t")[0].to_json()
        task.process([FakeRecord(0, event, b"t", timestamp=900_500)], 1)
        await task._judged.acknowledged()
        assert await ticks(901_000, 960_499, 960_500, 961_000) == [901_000, 960_499, 960_500]
        await task.finish(Deadline(1))

    asyncio.run(scenario())
