"""A batch that cannot be decoded stops the workers until an operator passes over it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrail_runtime import kafka
from schemas.base import DeadLetter
from schemas.errors import RestartRequiredError
from schemas.topics import Topics
from tests.servers.breakable_log import BreakableLog
from tests.streams.fleet import Fleet, Worker, installation
from tests.streams.topics import assert_same_pairs, judged_of, publish, read
from tests.streams.trajectories import mined_offline, trajectory
from tests.waiting import eventually


@pytest.fixture
def breakable(tmp_path: Path) -> Iterator[BreakableLog]:
    log = BreakableLog(tmp_path)
    yield log
    log.broker.stop()


@pytest.fixture
def fleet(
    breakable: BreakableLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    settings = installation(breakable.broker.client_address, tmp_path)
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", settings.kafka_bootstrap)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(tmp_path / "operator"))
    workers = Fleet(settings, tmp_path)
    yield workers
    workers.kill_all()


def remedy(worker: Worker, topic: str) -> list[str]:
    """The command that a worker names as it ends for what it cannot decode."""
    assert worker.wait(60) == 75, worker.log
    said = worker.log.splitlines()[-1]
    found = re.search(rf"ended: {topic}/(\d+) cannot be decoded from offset (\d+) on.*CRC", said)
    assert found, worker.log
    assert f"`retrail dlq skip {topic} {found[1]} {found[2]}`" in said
    return ["dlq", "skip", topic, *found.groups()]


def test_a_flipped_byte_stops_the_workers_until_an_operator_passes_over_its_batch(
    retrail: Any, breakable: BreakableLog, fleet: Fleet
) -> None:
    settings, topics = fleet.settings, Topics.of(fleet.settings)
    for name in ("good", "broken", "better"):
        publish(settings, trajectory(name), linger_ms=500)
    breakable.flip_a_byte(topics.trajectory_events, b"broken needs 0")

    with pytest.raises(RestartRequiredError, match=rf"{topics.trajectory_events}/\d .*offset \d+"):
        list(kafka.read_to_end(settings, topics.trajectory_events))
    skip_source = remedy(fleet.start("judge"), topics.trajectory_events)
    assert remedy(fleet.start("judge"), topics.trajectory_events) == skip_source
    assert retrail(*skip_source).status == 0
    judge = fleet.start("judge")

    def judged(count: int) -> bool:
        ended = [event for events in judged_of(settings).values() for event in events]
        return sum(event.type == "end" for event in ended) == count

    eventually(lambda: judged(2), 40, "what can be decoded")
    assert judge.sample("retrail_offset_discontinuities_total", kind="skipped") == 1
    for number, name in enumerate(("worse", "best"), 3):
        publish(settings, trajectory(name))
        eventually(lambda number=number: judged(number), 20, name)
    assert judge.stop() == 0
    breakable.flip_a_byte(topics.judged_events, b"worse needs 0")

    skip_judged = remedy(fleet.start("mine"), topics.judged_events)
    assert retrail(*skip_judged).status == 0
    fleet.start("mine")
    names = ("good", "better", "best")
    expected = mined_offline([e for name in names for e in trajectory(name)], settings)
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)

    letters = read(settings, topics.trajectory_events_dlq)
    places = {DeadLetter.read(letter.headers() or [])[:3] for letter in letters}
    assert places == {
        (topic, int(partition), int(offset))
        for _, _, topic, partition, offset in (skip_source, skip_judged)
    }
    assert "skipped" in retrail("dlq", "list").out


def test_a_place_that_is_not_there_is_refused(retrail: Any, installation: Any) -> None:
    topic = Topics.of(installation).trajectory_events
    assert topic in retrail("dlq", "skip", "elsewhere", 0, 5).err
    refused = retrail("dlq", "skip", topic, 3, 5)
    assert (refused.status, "partitions 0 to 2" in refused.err) == (1, True)
    assert read(installation, Topics.of(installation).trajectory_events_dlq) == []
