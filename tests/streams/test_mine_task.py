"""A miner that takes a partition over under other limits loses nothing."""

import asyncio

import pytest

from schemas.judged import Tick
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from streams.loop.source import Committed
from streams.mine.mine_worker import MineTask
from tests.streams.fakes import FakeRecord, Tape
from tests.streams.judged_log import browse, end, judged_record, numbered, reasoning, search

EVENTS = numbered(
    "t",
    [
        search("q", "a", "b"),
        browse("b"),
        reasoning("b", "relevant"),
        {"type": "other", "name": "x"},
        end(),
    ],
)


def never(failure):
    raise failure


def mined(settings, start, records):
    """What a task that starts there writes, and the commit that it ends with."""

    async def scenario():
        tape = Tape()
        task = MineTask(settings, 0, start, tape, never)
        task.process([record for record in records if record.offset >= start.offset])
        point = await task.finish(5)
        return [LabelledPair.model_validate_json(value) for value in tape.values], point

    return asyncio.run(scenario())


def a_log(events):
    """Events at log time 0, and a tick 20 s later."""
    values = [judged_record(0, event, source=n, time=0).value for n, event in enumerate(events)]
    values.append(Tick(as_of=20_000).to_json())
    return [FakeRecord(n, value, timestamp=20_000) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("setting", "events"),
    [("mine_gap_seconds", [*EVENTS[:3], EVENTS[4]]), ("mine_idle_seconds", EVENTS[:3])],
)
def test_what_shorter_limits_close_before_the_last_checkpoint_comes_out(setting, events):
    log = a_log(events)
    nothing, point = mined(Settings(), Committed(0), log)
    assert (nothing, point.offset) == ([], 0)
    unchanged, _ = mined(Settings(), point, log)
    assert unchanged == []
    pairs, _ = mined(Settings(**{setting: 5.0}), point, log)
    assert [pair.positive for pair in pairs] == ["b"]


def test_under_the_same_limits_nothing_is_written_twice():
    log = a_log(EVENTS)
    pairs, point = mined(Settings(), Committed(0), log)
    assert (len(pairs), point.offset) == (1, 0)
    assert mined(Settings(profile="paper"), point, log)[0] == []


def test_a_commit_of_a_version_before_is_taken_to_be_under_the_same_limits():
    log = a_log(EVENTS)
    assert mined(Settings(mine_gap_seconds=5.0), Committed(0, "1;6;-1;0"), log)[0] == []
