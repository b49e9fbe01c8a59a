"""Commands that read and write topics, on Apache Kafka."""

import json
from pathlib import Path
from typing import Any

import pytest

from consumers import releases
from retrail_runtime import kafka as consumers_kafka
from schemas.base import DeadLetter
from schemas.documents import Document
from schemas.releases import Live, Metrics
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES, Topics
from tests.trained import COMPARISON, a_decision, a_manifest, a_release, run_of

NOW = "2026-11-23T10:00:00+00:00"


def records(settings: Settings, topic: str) -> list[consumers_kafka.Record]:
    return list(consumers_kafka.read_to_end(settings, topic))


@pytest.mark.parametrize("command", [["pairs"], ["rollback"]], ids=" ".join)
def test_a_broker_that_is_unavailable_is_named_with_the_remedy(
    command: list[str], retrail: Any, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", closed_port)
    done = retrail(*command)
    assert done.status == 69
    assert f"Kafka does not answer at {closed_port}" in done.err
    assert "retrail up" in done.err
    assert "Traceback" not in done.err


def test_missing_topics_are_named_with_the_remedy(
    retrail: Any, kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", "absent_")
    path = tmp_path / "docs.jsonl"
    path.write_text('{"_id": "a", "text": "x"}\n')
    for command in (["pairs"], ["documents", "load", path], ["dlq", "list"], ["releases"]):
        done = retrail(*command)
        assert done.status == 1
        assert "absent_" in done.err
        assert "retrail topics create" in done.err


def a_pair(pair_id: str, **changes: Any) -> bytes:
    pair = {
        "pair_id": pair_id,
        "trajectory_id": "t",
        "browse_seq": 1,
        "revision": "",
        "profile": "reference",
        "query": "when was it built",
        "positive": "d2",
        "negatives": ["d7"],
        "verdict": "relevant",
        "judge": "local",
        "judge_version": "1",
        "rejected": 0,
        "rank": 2,
        "outcome": "correct",
        "closed_by": "end",
        "gaps": 0,
        "agent": {"name": "a", "model": "m"},
        "tenant": "",
    }
    return json.dumps(pair | changes).encode()


def test_pairs_are_shown_once_and_what_is_no_pair_is_named(
    retrail: Any, installation: Settings
) -> None:
    topic = Topics.of(installation).labelled_pairs
    first, second = a_pair("0" * 32), a_pair("1" * 32, verdict="irrelevant")
    repeat = a_pair("0" * 32, query="of a repeat")
    assert retrail("pairs").out == f"0 pairs on {topic}: 0 relevant, 0 irrelevant.\n"
    producer = consumers_kafka.producer(installation)
    values = [first, second, repeat, b'{"pair_id": 7}']
    consumers_kafka.send_all(producer, topic, [(b"t", value) for value in values])

    done = retrail("pairs", "--jsonl")
    assert done.out.encode() == first + b"\n" + second + b"\n"
    assert "is not a pair" in done.err
    assert done.status == 0
    assert len(retrail("pairs", "--jsonl", "--repeats").out.splitlines()) == 3
    shown = retrail("pairs").out.splitlines()
    assert shown[:3] == [
        "when was it built",
        "  relevant d2 (not loaded)",
        "  rank 2, 1 negative (0 rejected), agent a m",
    ]
    assert max(map(len, shown)) <= 80
    assert shown[-2] == f"2 pairs on {topic}: 1 relevant, 1 irrelevant."
    other = a_pair("2" * 32, trajectory_id="u", agent={"name": "b", "model": "n"})
    consumers_kafka.send_all(producer, topic, [(b"u", other)])
    assert retrail("pairs").out.count("d2 (not loaded)") == 3
    assert retrail("pairs").out.endswith(
        "3 of them are about documents that are not loaded: `retrail documents load`.\n"
    )
    text = Document(doc_id="d2", text="x").to_json()
    consumers_kafka.send_all(producer, Topics.of(installation).documents, [(b"d2", text)])
    assert "not loaded" not in retrail("pairs").out
    for option, value in (("--trajectory", "u"), ("--agent", "b"), ("--agent", "n")):
        assert retrail("pairs", option, value, "--jsonl").out.encode() == other + b"\n"
    assert len(retrail("pairs", "--limit", 1).out.splitlines()) == 4


def test_documents_are_loaded_and_bad_ones_named(
    retrail: Any, installation: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "beir"
    folder.mkdir()
    corpus = folder / "corpus.jsonl"
    large = json.dumps({"_id": "large", "text": "x" * MAX_EVENT_BYTES})
    lines = ['{"_id": "a", "title": "A", "text": "of a"}', "{", large, '{"_id": 7, "text": "é"}']
    corpus.write_text("\n".join(lines), encoding="utf-8")
    done = retrail("documents", "load", folder)
    assert done.status == 1
    assert f"{corpus}:2: not JSON" in done.err
    assert f"{corpus}:3: document large has 4,19" in done.err
    assert "2 documents of" in done.out
    assert "2 documents were left out" in done.err
    found = records(installation, Topics.of(installation).documents)
    assert {r.key: Document.model_validate_json(r.value or b"") for r in found} == {
        b"a": Document(doc_id="a", title="A", text="of a"),
        b"7": Document(doc_id="7", text="é"),
    }
    corpus.write_text(lines[0])
    again = retrail("documents", "load", corpus)
    assert (again.status, "left out" in again.err) == (0, False)


def test_a_fault_of_many_lines_is_named_once(
    retrail: Any, installation: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text("{\n" * 50)
    done = retrail("documents", "load", path)
    assert done.err.count("not JSON") == 1
    assert "50 documents were left out" in done.err


def test_dead_letters_are_listed_shown_and_replayed(retrail: Any, installation: Settings) -> None:
    topics = Topics.of(installation)
    assert "no dead letters" in retrail("dlq", "list").out
    producer = consumers_kafka.producer(installation)
    originals = {0: b"\xff{broken", 1: b'{"type": "dance"}', 2: b""}
    for offset, value in originals.items():
        letter = DeadLetter(
            topic=topics.trajectory_events,
            partition=0,
            offset=offset,
            stage="judge",
            reason=("malformed_json", "unknown_type", "too_large")[offset],
            exception="ValidationError",
            message=f"complaint {offset}",
        )
        consumers_kafka.publish_and_wait(
            producer,
            topics.trajectory_events_dlq,
            key=b"t",
            value=value,
            headers=letter.headers([("ce_id", b"e1")]),
        )
    place = str(records(installation, topics.trajectory_events_dlq)[0].partition)

    listed = retrail("dlq", "list").out
    for word in ("malformed_json", "unknown_type", "complaint 1", f"{place}:0", f"{place}:2"):
        assert word in listed
    assert "1 malformed_json, 1 unknown_type, 1 too_large" in listed
    only = retrail("dlq", "list", "--reason", "unknown_type").out
    assert "complaint 1" in only
    assert "complaint 0" not in only

    shown = retrail("dlq", "show", f"{place}:1")
    assert shown.out == '{"type": "dance"}'
    assert "retrail_dlq_reason: unknown_type" in shown.err
    assert "key: t" in shown.err
    assert retrail("dlq", "show", "0:99").status == 1

    for wrong in ([], ["--all", "--reason", "x"], ["9:9"]):
        assert retrail("dlq", "replay", *wrong).status == 1
    assert "1 record was sent back" in retrail("dlq", "replay", f"{place}:1").out
    everything = retrail("dlq", "replay", "--all")
    assert "2 records were sent back" in everything.out
    assert (
        f"Not sent, because their values were not kept: {topics.trajectory_events} 0:2"
        in everything.err
    )
    back = records(installation, topics.trajectory_events)
    assert sorted((r.value or b"", r.key, r.headers) for r in back) == sorted(
        (value, b"t", (("ce_id", b"e1"),)) for value in (originals[1], originals[0], originals[1])
    )


def test_releases_are_listed_promoted_and_rolled_back(retrail: Any, installation: Settings) -> None:
    assert "no release yet" in retrail("releases").out
    assert json.loads(retrail("releases", "--json").out) == {"live": None, "releases": []}
    producer = consumers_kafka.producer(installation)
    consumers_kafka.publish_and_wait(
        producer, Topics.of(installation).training_runs, value=a_manifest(2).to_json()
    )
    better = Metrics(ndcg_at_10=0.52, recall_at_10=0.7, mrr=0.4)
    held_out = COMPARISON.model_copy(update={"child_metrics": better})
    own = COMPARISON.model_copy(update={"queries": 9, "difference": 0.0123})
    for release in (
        a_release(1, None, "first"),
        a_release(2, 1, "ship", held_out=held_out, regression=own),
        a_release(3, 2, "hold"),
    ):
        releases.write_release(producer, installation, release)
    live = Live.model_validate_json(
        json.dumps({"version": 2, "previous": 1, "why": "it passed", "changed_at": NOW})
    )
    releases.write_live(producer, installation, live)
    listed = retrail("releases").out
    assert "Release 2 is live: it passed." in listed
    assert retrail("promote", 2).out == "Release 2 is live already.\n"
    runs = retrail("train", "--run", "?")
    assert (runs.status, runs.out.startswith("Latest runs: ")) == (0, True)
    assert "(release 2)" in runs.out
    assert "because of 3" in listed
    assert "0.5200" in listed
    assert "+0.0200" in listed
    assert "regression" in listed
    assert "+0.0123" in listed
    [line] = [line for line in listed.splitlines() if "labelled-pairs[1] 7 to 11" in line]
    assert line.split()[:2] == ["2", 12 * "0"]
    as_json = json.loads(retrail("releases", "--json").out)
    assert as_json["live"]["version"] == 2
    assert [one["decision"] for one in as_json["releases"]] == ["first", "ship", "hold"]
    assert as_json["releases"][1]["run"]["ranges"][0]["end"] == 12
    assert "waits" not in listed
    releases.write_release(producer, installation, a_release(4, 2, "ship", candidate=True))
    assert "Release 4 is a candidate" in retrail("releases").out
    better = COMPARISON.model_copy(update={"difference": 0.0456})
    decision = a_decision(4, "pending", held_out=better, reason="better on all documents")
    assert releases.write_decision(producer, installation, decision) == decision
    listed = retrail("releases").out
    assert "Release 4 waits: `retrail promote 4` makes it live." in listed
    assert "4, second stage: better on all documents" in listed
    assert "+0.0456" in listed
    last = json.loads(retrail("releases", "--json").out)["releases"][-1]
    assert (last["state"], last["second"]["decision"]) == ("waiting", "pending")
    late = releases.write_decision(producer, installation, a_decision(4, "reject"))
    assert late == decision, "the first decision counts"

    promoted = retrail("promote", "3")
    assert (promoted.status, "Release 3 will serve" in promoted.out) == (0, True)
    assert retrail("promote", "9").status == 1
    back = retrail("rollback")
    assert "Release 2 will serve (rolled back from release 3)" in back.out
    known = releases.read(installation)
    assert known.live is not None
    assert known.live.quarantined == (run_of(3),)
