"""`retrail erase`, and what the other commands then pass over."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from retrail_runtime import kafka
from schemas.pairs import encode
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World

ANSWER = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 0,
    "occurred_at": "2026-11-23T10:00:00+00:00",
    "agent": {"name": "a", "model": "m"},
    "type": "answer",
}
KEY = "a key of the installation"


@pytest.fixture
def erasing(installation: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.setenv("RETRAIL_ERASE_KEY", KEY)
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RETRAIL_PARTITIONS", "3")
    made = World(installation)
    some = [made.pair(tenant=tenant) for tenant in ("gone", "kept") * 3]
    topic = Topics.of(installation).labelled_pairs
    kafka.send_all(made.producer, topic, [encode(pair) for pair in some])
    return installation


def tenants(retrail: Any) -> list[str]:
    lines = retrail("pairs", "--jsonl").out.splitlines()
    return sorted({json.loads(line)["tenant"] for line in lines})


def test_erased_pairs_are_not_shown_and_completion_is_not_promised(
    retrail: Any, erasing: Settings
) -> None:
    assert tenants(retrail) == ["gone", "kept"]
    done = retrail("erase", "--tenant", "gone")
    assert done.status == 3, done.err
    assert "3 pairs are not used any more" in done.out
    assert "labelled-pairs" in done.err
    assert "RETRAIL_PAIRS_RETENTION_HOURS" in done.err
    assert tenants(retrail) == ["kept"]
    rows = {line.split()[0]: line.split()[-1] for line in done.out.splitlines() if "20" in line}
    holding = ("trajectory-events", "trajectory-events.dlq", "otlp_spans", "agent-spans")
    assert {f"{erasing.topic_prefix}{name}" for name in holding} <= set(rows)


def test_complete_where_every_topic_ends(
    retrail: Any, erasing: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, topic = kafka.admin(erasing), Topics.of(erasing).labelled_pairs
    entry = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()
    monkeypatch.setenv("RETRAIL_PAIRS_RETENTION_HOURS", "1")
    assert "ok" in retrail("topics", "list").out
    assert retrail("erase", "--tenant", "gone").status == 0


def test_an_import_of_an_erased_trajectory_is_kept_out(
    retrail: Any, erasing: Settings, tmp_path: Path
) -> None:
    # The judge has read what is on the topic: nothing.
    assert retrail("erase", "--trajectory", "gone").status == 3
    file = tmp_path / "events.jsonl"
    events = [{**ANSWER, "trajectory_id": name, "event_id": name} for name in ("gone", "kept")]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    done = retrail("publish", file, "--format", "events")
    assert done.status == 0, done.err
    topic = Topics.of(erasing).trajectory_events
    assert [record.key for record in kafka.read_to_end(erasing, topic)] == [b"kept"]


@pytest.mark.parametrize("options", [(), ("--agent", "a", "--tenant", "b")])
def test_one_subject_at_a_time(retrail: Any, options: tuple[str, ...]) -> None:
    done = retrail("erase", *options)
    assert done.status == 1
    assert "Give one of --trajectory" in done.err


def test_without_a_key(retrail: Any, installation: Settings) -> None:
    done = retrail("erase", "--tenant", "gone")
    assert done.status == 1
    assert "RETRAIL_ERASE_KEY_FILE" in done.err
