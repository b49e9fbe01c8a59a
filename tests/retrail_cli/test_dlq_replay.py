"""Dead letters that are sent back to running workers, on Apache Kafka."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import topics as deploy_topics
from schemas.pairs import LabelledPair
from schemas.topics import Topics
from tests.streams.fleet import Fleet, installation
from tests.streams.topics import assert_same_pairs, pairs_of, publish, read, send
from tests.streams.trajectories import mined_offline, trajectory
from tests.waiting import eventually

OLDER_JUDGE = """
from schemas.errors import InvalidRecordError
from streams.judge import worker as judge
read = judge.read_published
def of_an_older_version(value):
    if b'"event_id":"opened-1"' in value or b'"event_id":"ended-1"' in value:
        raise InvalidRecordError("doc_id: unknown to this version", reason="invalid_field")
    return read(value)
judge.read_published = of_an_older_version
"""

MINUTES, GAP = "600", "40"
"""Long enough for a replay before a gap is passed, and short enough to wait for that."""


@pytest.fixture
def fleet(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Workers of an installation of the test's own, which the command line finds too."""
    settings = installation(kafka, tmp_path)
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(tmp_path / "operator"))
    workers = Fleet(settings, tmp_path)
    yield workers
    workers.kill_all()


def of_the_first_browse(pairs: dict[str, LabelledPair]) -> set[str]:
    """The trajectories whose first browse gave a pair."""
    return {pair.trajectory_id for pair in pairs.values() if pair.browse_seq == 1}


def test_a_replayed_event_counts_while_its_trajectory_is_open_and_later_in_a_new_revision(
    retrail: Any, fleet: Fleet, tmp_path: Path
) -> None:
    """Three trajectories lack their first browse, which was dead-lettered for a wrong field.

    ``opened`` and ``ended`` were right, and their judge too old; ``mended`` was wrong.
    """
    settings = fleet.settings
    opened, ended, mended = (trajectory(name) for name in ("opened", "ended", "mended"))
    wrong = json.loads(mended[1].to_json()) | {"doc_id": 7}
    judge = fleet.start("judge", OLDER_JUDGE)
    miner = fleet.start("mine", RETRAIL_MINE_GAP_SECONDS=GAP)
    publish(settings, [*opened[:-1], *ended, mended[0]])
    send(settings, [(b"mended", json.dumps(wrong).encode(), [])])
    publish(settings, mended[2:-1])

    def places() -> dict[bytes, str] | None:
        letters = read(settings, Topics.of(settings).trajectory_events_dlq)
        found = {letter.key(): f"{letter.partition()}:{letter.offset()}" for letter in letters}
        return found if len(found) == 3 else None

    letters = eventually(places, 90, "three dead letters")
    assert "3 invalid_field" in retrail("dlq", "list").out
    assert judge.stop() == 0
    fleet.start("judge")

    assert "1 record was sent back" in retrail("dlq", "replay", letters[b"opened"]).out
    shown = retrail("dlq", "show", letters[b"mended"]).out
    file = tmp_path / "mended.json"
    file.write_text(json.dumps(json.loads(shown) | {"doc_id": mended[1].model_dump()["doc_id"]}))
    # 3 warns: the search that showed the document is not in this file.
    assert retrail("publish", file, "--format", "events").status == 3
    publish(settings, [opened[-1], mended[-1]])
    expected = mined_offline([*opened, *mended], settings)
    assert {"opened", "mended"} == of_the_first_browse(expected)
    fleet.until_pairs(expected)

    without = mined_offline([ended[0], *ended[2:]], settings)
    assert without
    assert not of_the_first_browse(without)
    fleet.until_pairs(expected | without, 120)

    def late() -> float:
        return miner.sample("retrail_mine_events_total", result="late")

    before = late()
    assert "1 record was sent back" in retrail("dlq", "replay", letters[b"ended"]).out
    eventually(lambda: late() == before + 1, 30, "late event")
    fleet.finish()
    first: dict[str, LabelledPair] = {}
    for pair in pairs_of(settings):
        first.setdefault(pair.pair_id, pair.content())
    assert first == expected | without
    assert {pair.gaps for pair in pairs_of(settings) if pair.trajectory_id == "ended"} == {1}

    revised = settings.model_copy(update={"revision": "r2"})
    deploy_topics.ensure(revised)
    (tmp_path / "r2").mkdir()
    patient = Fleet(revised, tmp_path / "r2")
    try:
        patient.start("judge")
        patient.start("mine", RETRAIL_MINE_GAP_SECONDS=MINUTES)
        whole = mined_offline([*opened, *ended, *mended], revised)
        assert {"opened", "ended", "mended"} == of_the_first_browse(whole)
        patient.until_pairs(whole)
        patient.finish()
    finally:
        patient.kill_all()
    assert assert_same_pairs(revised, whole) == 0
