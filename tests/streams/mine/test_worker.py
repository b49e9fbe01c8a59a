"""A miner that takes a partition over writes nothing twice."""

import asyncio
from datetime import UTC, datetime

import pytest
import structlog
from prometheus_client import REGISTRY

from retrail_runtime.retry import Deadline
from schemas.erasures import Erasure, Erasures, hashed, key_check
from schemas.judged import Tick
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics
from streams.loop.checkpoint import Committed
from streams.mine import worker
from streams.mine.worker import MineTask
from tests.streams.fakes import LOG, FakeRecord, Tape, assignment
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


def mined(settings, start, records, erasures=Erasures):
    """What a task that starts there writes, and the commit that it ends with."""

    async def scenario():
        tape = Tape()
        task = MineTask(assignment(0, start, tape), Topics.of(settings), settings, erasures)
        task.process([record for record in records if record.offset >= start.offset], len(records))
        point = await task.finish(Deadline(5))
        return [LabelledPair.model_validate_json(value) for value in tape.values], point

    return asyncio.run(scenario())


def a_log(events):
    """Events at log time 0, and a tick 20 s later."""
    values = [judged_record(0, event, source=n, time=0).value for n, event in enumerate(events)]
    values.append(Tick(as_of=20_000).to_json())
    return [FakeRecord(n, value, timestamp=20_000) for n, value in enumerate(values)]


def test_what_a_commit_covers_is_not_written_twice():
    log = a_log(EVENTS)
    pairs, point = mined(Settings(), Committed(0), log)
    assert (len(pairs), point.offset) == (1, 0)
    assert mined(Settings(profile="paper"), point, log)[0] == []


def test_without_metadata_the_pairs_are_written_again():
    log = a_log(EVENTS)
    pairs, _ = mined(Settings(), Committed(0), log)
    assert mined(Settings(), Committed(0, "2;6;-1;0;1,2,3,4,5", LOG), log)[0] == pairs


@pytest.mark.parametrize(("end", "written"), [(1, 0), (0, 1)])
def test_a_pair_of_erased_events_is_not_written_and_changes_no_commit(end, written):
    """The trajectory begins at offset 0 of judged-events."""
    key = b"a key of sixteen"
    erasure = Erasure(
        erasure_id="0" * 32,
        kind="trajectory",
        subject=hashed(key, "trajectory", "t"),
        key_check=key_check(key),
        ends=(Range(topic="judged-events", partition=0, start=0, end=end),),
        erased_at=datetime.now(UTC),
    )
    log = a_log(EVENTS)
    pairs, point = mined(Settings(), Committed(0), log, lambda: Erasures(key, [erasure]))
    assert (len(pairs), point) == (written, mined(Settings(), Committed(0), log)[1])


def test_an_agent_whose_trajectories_give_no_pairs_is_warned_about_once() -> None:
    counts = {("incomplete", "no browse", "me"): 2, ("incomplete", "no search", "me"): 1}

    def shown() -> list[float]:
        name = "retrail_mine_incomplete_trajectories_total"
        labels = ({"reason": reason} for _, reason, _ in counts)
        return [REGISTRY.get_sample_value(name, one) or 0.0 for one in labels]

    before = shown()
    with structlog.testing.capture_logs() as lines:
        worker.show(counts)
        worker.show(counts)
    assert [now - then for now, then in zip(shown(), before, strict=True)] == [4, 2]
    assert [(line["agent"], line["reason"]) for line in lines] == [
        ("me", "no browse"),
        ("me", "no search"),
    ]
    assert all("trajectory" in line["likely_cause"] for line in lines)
