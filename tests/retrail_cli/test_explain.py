"""`retrail explain` on Apache Kafka: what it prints equals what the miner made."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers import releases
from deploy import topics as deploy_topics
from retrail_runtime import kafka
from schemas.base import canonical
from schemas.runs import AgentIntensity, Intensity, Range
from schemas.settings import Settings
from schemas.topics import Topics
from streams.events import encode
from streams.mine.fold import Fold
from streams.mine.mining import Pair
from tests.streams.judged_log import (
    LogRecord,
    browse,
    fruitful,
    interleaved,
    numbered,
    search,
    written,
)
from tests.streams.mine.partition import STEPS
from tests.trained import a_manifest, a_release
from trainer.data.draws import is_held_out
from trainer.data.examples import TrainingExample
from trainer.data.weighting import weight
from trainer.registry.registry import Registry


@pytest.fixture
def one_partition(installation: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation whose topics have one partition."""
    prefix = installation.topic_prefix + "one_"
    settings = installation.model_copy(update={"topic_prefix": prefix, "partitions": 1})
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", prefix)
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(installation.data_dir))
    deploy_topics.ensure(settings)
    return settings


def mined(settings: Settings, log: list[LogRecord]) -> list[Pair]:
    """The log on judged-events, and its pairs on labelled-pairs."""
    topics, producer, fold = Topics.of(settings), kafka.producer(settings), Fold.of(settings)
    judged = [(json.loads(one.value)["trajectory_id"].encode(), one.value) for one in log]
    kafka.send_all(producer, topics.judged_events, judged)
    found = [
        pair for one in log for pair in fold.apply(one.offset, one.timestamp, one.value)
    ] + fold.close_all()
    records = [(pair.trajectory_id.encode(), encode(pair)) for pair in found]
    kafka.send_all(producer, topics.labelled_pairs, records)
    return found


def test_20_drawn_pairs_are_explained_as_the_miner_made_them(
    retrail: Any, one_partition: Settings
) -> None:
    rng = random.Random(3)
    found = mined(one_partition, written(interleaved(fruitful(rng, 20), rng)))
    for pair in rng.sample(found, 20):
        answer = json.loads(retrail("explain", pair.pair_id, "--json").out)
        assert (answer["kind"], answer["number_of_pairs"]) == ("pair", 1)
        [shown] = answer["pairs"]
        assert shown["pair"] == pair.labelled().model_dump(mode="json", exclude_none=True)
        [trajectory] = answer["trajectories"]
        first, *_, last = trajectory["events"]
        assert (first["offset"], last["offset"]) == pair.sources
        [made] = [one for one in trajectory["browses"] if one["pair_id"] == pair.pair_id]
        roles = made["documents"]
        assert roles.pop(pair.positive) == "positive"
        negatives = [doc_id for doc_id in roles if doc_id in pair.negatives]
        assert (*negatives,) == pair.negatives
        rejected = [doc_id for doc_id in negatives if roles[doc_id].startswith("rejected")]
        assert (*rejected,) == pair.negatives[: pair.rejected]
        opened = [one for one in trajectory["events"] if one.get("seq") == pair.browse_seq]
        assert opened[0]["doc_id"] == pair.positive


def test_a_trajectory_without_a_pair_says_why(retrail: Any, one_partition: Settings) -> None:
    steps = [search("q", "a"), browse("b"), browse("a"), {"type": "end", "outcome": "unknown"}]
    mined(one_partition, written(numbered("quiet", steps)))
    answer = json.loads(retrail("explain", "quiet", "--json").out)
    [trajectory] = answer["trajectories"]
    assert [(one["doc_id"], one["result"]) for one in trajectory["browses"]] == [
        ("b", "unknown"),
        ("a", "unknown"),
    ]
    text = retrail("explain", "quiet").out
    assert "a: unknown, no pair" in text
    missing = retrail("explain", "nothing-of-that-name")
    assert missing.status == 1
    assert "nothing-of-that-name" in missing.err
    for what in ("nothing-of-that-name", "99"):
        absent = retrail("explain", what, "--as", "release")
        assert absent.status == 1
        assert f"There is no pair, trajectory, document, query or release '{what}'" in absent.err


def test_runs_weights_and_the_gate_are_shown(
    retrail: Any, one_partition: Settings, tmp_path: Path
) -> None:
    settings, topics = one_partition, Topics.of(one_partition)
    pair, *_ = mined(settings, written(numbered("t", STEPS)))
    assert not is_held_out(pair.query)
    registry, producer = Registry.of(settings), kafka.producer(settings)
    scale = AgentIntensity(beta=7, mu=0.5, pairs=60)
    intensity = Intensity(overall=scale, by_agent_model={})
    trained = weight(pair.labelled(), intensity)
    example = TrainingExample(pair.pair_id, pair.query, "b", "text", (("a", "other"),), trained)
    earlier = replace(
        example,
        pair_id="5" * 32,
        query="asked before",
        weight=0.5,
        found_by=pair.pair_id,
    )
    span = (Range(topic=topics.labelled_pairs, partition=0, start=0, end=1),)
    manifest = a_manifest(
        2,
        ranges=span,
        intensity=intensity,
        training_file=registry.store_training_file("r", (example, earlier)),
    )
    left_out = a_manifest(
        3,
        parent=1,
        ranges=span,
        left_out={"document cap": 1, "held out": 4},
        training_file=registry.store_training_file("r", ()),
    )
    model = registry.publish("r/run", 2, lambda folder: _file(folder))
    row = {"hits": ["b"], "ndcg_at_10": 0.5}
    line = {"set": "held out", "query": "Q ", "relevant": {"b": 1}, "parent": row, "child": row}
    pool = {"set": "pool", "documents": ["a", "b"], "since_parent": False}
    content = b"".join(canonical(one) + b"\n" for one in (line, pool))
    registry.write_beside(model, "gate.jsonl", content.decode())
    releases.write_release(producer, settings, a_release(1, None, "first"))
    for run in (manifest, left_out):
        kafka.publish_and_wait(producer, topics.training_runs, value=run.to_json())
    released = a_release(2, 1, "hold", model=model, results="e" * 64)
    releases.write_release(producer, settings, released)

    answer = json.loads(retrail("explain", pair.pair_id[:8], "--json").out)
    first, of_earlier_query, second = answer["pairs"][0]["runs"]
    assert of_earlier_query == {
        "run_id": manifest.run_id,
        "version": 2,
        "trained": "earlier query",
        "query": "asked before",
        "weight": 0.5,
        "negatives": 1,
    }
    assert first == {
        "run_id": manifest.run_id,
        "version": 2,
        "trained": "new",
        "weight": 1.0,
        "negatives": 1,
        "reasoning_tokens": 7,
        "beta": 7.0,
        "mu": 0.5,
        "outcome_factor": 1.0,
    }
    assert second["left_out"] == ["document cap"]
    assert answer["gate"] == [{"version": 2, **line}]
    assert [one["version"] for one in answer["releases"]] == [2]
    text = retrail("explain", "b").out
    assert "trained" not in text
    assert "new, weight 1 = (1 - exp(-ln 2 * 7 / 7)) / 0.5 * 1, 1 negatives" in text
    assert "earlier query, weight 0.5, 'asked before', 1 negatives" in text
    assert "left out (document cap)" in text
    assert "Release 2: hold" in text
    by_query = json.loads(retrail("explain", "  Q", "--json").out)
    assert (by_query["kind"], by_query["number_of_pairs"]) == ("query", 1)
    by_version = json.loads(retrail("explain", "2", "--json").out)
    assert (by_version["kind"], by_version["gate"]) == ("release", answer["gate"])
    assert by_version["releases"] == answer["releases"]


def _file(folder: Path) -> None:
    (folder / "weights").write_text("w")
