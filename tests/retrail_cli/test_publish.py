"""`retrail publish`: files of trajectories on Apache Kafka."""

import json
from pathlib import Path
from typing import Any

from retrail_runtime import kafka
from schemas.documents import Document, encode
from schemas.events import Event, Search, cloudevents, parse
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES, Topics
from streams import events as streamed
from streams.importing.importer import Importer
from tests.shared_data import LRAT, needs_lrat

NOW = "2026-11-23T10:00:00+00:00"

ANSWER = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 0,
    "occurred_at": NOW,
    "agent": {"name": "a", "model": "m"},
    "type": "answer",
}


def records(settings: Settings) -> list[kafka.Record]:
    return list(kafka.read_to_end(settings, Topics.of(settings).trajectory_events))


def values(settings: Settings) -> dict[str, list[bytes]]:
    """Events by trajectory."""
    found: dict[str, list[bytes]] = {}
    for record in records(settings):
        found.setdefault((record.key or b"").decode(), []).append(record.value or b"")
    return found


@needs_lrat
def test_published_files_are_on_the_topic_event_by_event(
    retrail: Any, installation: Settings
) -> None:
    done = retrail("publish", LRAT)
    assert done.status == 0, done
    for record in records(installation):
        event = parse(record.value or b"").event
        assert record.key == event.trajectory_id.encode()
        assert list(record.headers) == cloudevents(event, event.type)
    wanted = {
        part.events[0].trajectory_id: [streamed.encode(event) for event in part.events]
        for part in Importer("lrat").read([LRAT])
    }
    assert values(installation) == wanted
    assert f"{sum(map(len, wanted.values())):,} events are on" in done.out
    assert "lrat: 6 files, 6 trajectories, 172 steps" in done.out


def test_with_strict_nothing_is_published_if_one_trajectory_is_bad(
    retrail: Any, installation: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    for bad, complaint in (
        ('{"type": "dance"}', f"{path}:2:"),
        (json.dumps(ANSWER | {"text": "x" * MAX_EVENT_BYTES}), "the topic takes 4,194,304"),
    ):
        path.write_text(f"{json.dumps(ANSWER)}\n{bad}\n")
        done = retrail("publish", path, "--strict")
        assert done.status == 1
        assert complaint in done.err
    assert records(installation) == []
    path.write_text(f"{json.dumps(ANSWER)}\n")
    assert retrail("publish", path, "--strict").status == 0
    [record] = records(installation)
    assert json.loads(record.value or b"")["event_id"] == "e"


def test_what_is_bad_is_named_and_the_others_are_published(
    retrail: Any, installation: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    large = ANSWER | {"trajectory_id": "u", "text": "x" * MAX_EVENT_BYTES}
    last = ANSWER | {"trajectory_id": "v"}
    lines = [json.dumps(ANSWER), "{", json.dumps(large), json.dumps(last)]
    path.write_text("\n".join(lines))
    done = retrail("publish", path)
    assert done.status == 1
    assert f"{path}:2: is not JSON" in done.err
    assert "trajectory u: event e has 4,195," in done.err
    assert set(values(installation)) == {"t", "v"}


def test_ids_are_looked_up_in_the_documents_on_the_topic(
    retrail: Any, installation: Settings, tmp_path: Path
) -> None:
    producer = kafka.producer(installation)
    loaded = [encode(Document(doc_id=doc_id, text="…")) for doc_id in ("lamp.md", "tides.md")]
    kafka.send_all(producer, Topics.of(installation).documents, loaded)
    hits = [
        {"id": "u1", "metadata": {"source": "lamp.md"}},
        {"id": "tides.md"},
        {"id": "u3"},
    ]
    call = {
        "type": "tool_call",
        "tool_name": "search",
        "arguments": {"query": "lamp"},
        "output": json.dumps(hits),
    }
    (tmp_path / "run.json").write_text(json.dumps({"query_id": 1, "result": [call]}))
    report = tmp_path / "report.txt"
    assert retrail("publish", tmp_path, "--report", report).status == 0
    [published] = values(installation).values()
    search: Event = parse(published[0]).event
    assert isinstance(search, Search)
    assert [hit.doc_id for hit in search.hits] == ["lamp.md", "tides.md", "u3"]
    assert json.loads(report.read_text())["formats"]["lrat"]["not_documents"] == 1
