"""Which commands leave a line in the audit log."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumers import releases
from retrail_runtime import kafka
from schemas.base import DeadLetter
from schemas.errors import InputError
from schemas.settings import Settings
from schemas.topics import Topics


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert all(line.pop("at") and line.pop("who")["user"] for line in found)
    return found


def test_changes_of_the_live_release(
    retrail: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promote(settings: Settings, version: int) -> Any:
        if version == 9:
            raise InputError("There is no release 9.")
        return SimpleNamespace(version=version, why="promoted")

    monkeypatch.setattr(releases, "read", lambda settings: SimpleNamespace(live=None))
    monkeypatch.setattr(releases, "promote", promote)
    monkeypatch.setattr(releases, "rollback", lambda settings: promote(settings, 2))
    assert retrail("promote", "3").status == retrail("rollback").status == 0
    assert retrail("promote", "9").status == 1
    assert lines(folder) == [
        {"action": "promote", "version": 3},
        {"action": "rollback", "version": 2},
    ]


def test_dead_letters_and_erasures(
    retrail: Any, folder: Path, installation: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics, producer = Topics.of(installation), kafka.producer(installation)
    letter = DeadLetter(topics.trajectory_events, 0, 0, "judge", "not_json", message="not JSON")
    kafka.publish_and_wait(
        producer, topics.trajectory_events_dlq, value=b"{", headers=letter.headers(), key=b"t"
    )
    replayed = retrail("dlq", "replay", "--all")
    assert replayed.status == 0, replayed.err
    skipped = retrail("dlq", "skip", topics.judged_events, 0, 7)
    assert skipped.status == 0, skipped.err
    # The judge has not read the record that was sent back, so nothing is erased: no line.
    monkeypatch.setattr("consumers.erasing.JUDGE_SECONDS", 0.5)
    monkeypatch.setenv("RETRAIL_ERASE_KEY", "a key of the installation")
    assert retrail("erase", "--tenant", "acme").status == 1
    monkeypatch.setattr("consumers.erasing._await_judge", lambda settings: None)
    assert retrail("erase", "--tenant", "acme").status == 3
    replay, skip, erase = lines(folder)
    assert replay == {
        "action": "dlq replay",
        "topic": topics.trajectory_events,
        "records": 1,
        "reason": None,
    }
    place = {"topic": topics.judged_events, "partition": 0, "offset": 7}
    assert skip == {"action": "dlq skip", **place}
    assert (erase["action"], erase["kind"], erase["pairs"]) == ("erase", "tenant", 0)
    assert "acme" not in (folder / "audit.jsonl").read_text()
