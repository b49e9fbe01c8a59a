"""What a judge writes for offsets without an event, so that the miner can detect lost ones."""

import asyncio

import pytest

from retrail_runtime.retry import Deadline
from schemas.judged import JudgedSearch, Skipped, adapter
from schemas.settings import Settings
from schemas.topics import Topics
from streams.judge.worker import JudgeTask
from streams.loop.checkpoint import Committed
from tests.streams.fakes import LOG, FakeRecord, Tape, assignment
from tests.streams.trajectories import trajectory

SEARCH = trajectory("t")[0]
BAD = b"{"


class Stuck:
    """A channel that acknowledges nothing."""

    async def send(self, records):
        list(records)
        await asyncio.get_running_loop().create_future()


def judged(*batches, start=None, channel=None):
    """What comes of batches (offset → value, and the end of each), and the commit point."""

    async def scenario():
        tape = channel or Tape()
        task = JudgeTask(assignment(1, start, tape), Topics.of(Settings()), None, 1000)
        for values, end in batches:
            records = [FakeRecord(at, value, b"t") for at, value in values.items()]
            task.process(records, end)
        if channel is None:
            await task._judged.acknowledged()
            await task._dead.acknowledged()
        point = await task.commit_point()
        await task.finish(Deadline(0))
        return [adapter.validate_json(value) for value in getattr(tape, "values", [])], point

    return asyncio.run(scenario())


def covered(outputs):
    """The offsets that each output stands for."""
    for output in outputs:
        assert (output.source_topic_id, output.source_partition) == (LOG, 1)
    return [(type(output), output.skipped_from, output.source_offset) for output in outputs]


def test_consecutive_events_name_nothing():
    good = SEARCH.to_json()
    outputs, point = judged(({0: good, 1: good}, 2), ({2: good}, 3))
    assert covered(outputs) == [(JudgedSearch, None, at) for at in (0, 1, 2)]
    assert point.offset == 3


def test_dead_letters_and_markers_are_named_on_the_next_event_of_the_batch():
    good = SEARCH.to_json()
    outputs, _ = judged(({0: good, 1: BAD, 2: BAD, 5: good, 6: good}, 7))
    assert covered(outputs) == [
        (JudgedSearch, None, 0),
        (JudgedSearch, 1, 5),
        (JudgedSearch, None, 6),
    ]


def test_where_no_event_follows_they_get_a_record_of_their_own():
    good = SEARCH.to_json()
    outputs, point = judged(({0: good, 1: BAD}, 4), ({}, 6), ({6: good}, 7))
    assert covered(outputs) == [
        (JudgedSearch, None, 0),
        (Skipped, 1, 3),
        (Skipped, 4, 5),
        (JudgedSearch, None, 6),
    ]
    assert point.offset == 7


def test_a_commit_does_not_pass_offsets_whose_name_is_not_acknowledged():
    """A new owner that began behind them would not name them."""
    good = SEARCH.to_json()
    _, point = judged(({0: BAD, 1: BAD, 2: good}, 5), channel=Stuck())
    assert point.offset == 0
    _, point = judged(({0: BAD, 1: BAD}, 5), channel=Stuck())
    assert point.offset == 0


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (Committed(7, "", LOG), None),
        # Set by an operator, or the beginning of a log whose first records are gone.
        (Committed(7), 0),
        (Committed(7, "", "another log"), 0),
    ],
)
def test_what_stands_before_an_offset_that_no_judge_committed_is_named(start, named):
    outputs, _ = judged(({7: SEARCH.to_json()}, 8), start=start)
    assert covered(outputs) == [(JudgedSearch, named, 7)]
