"""The whole demo over real Kafka, Faust and Milvus, on a corpus that takes seconds."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from pymilvus import MilvusClient

from simulation import stdlib_corpus
from tests.waiting import eventually

NEEDS = 40
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder of real text: some of the standard library's documentation."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "qrels").mkdir()
    whole = stdlib_corpus.load()
    parts = {"train": whole.training[:NEEDS], "test": whole.unseen[:NEEDS]}
    needs = [need for part in parts.values() for need in part]
    served = {doc_id for need in needs for doc_id in need.relevant}
    rows = [{"_id": d.doc_id, "text": d.text} for d in whole.documents if d.doc_id in served]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"_id": need.need_id, "text": need.text} for need in needs]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, part in parts.items():
        lines = [f"{need.need_id}\t{doc_id}\t1" for need in part for doc_id in need.relevant]
        (folder / "qrels" / f"{name}.tsv").write_text("\n".join(lines))
    return folder


def start(corpus: Path, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "retrail_cli", "demo", "--corpus", str(corpus)]
    command += ["--turns", "1", "--agents", str(2 * NEEDS), "--seed", "2"]
    command += ["--report", str(folder / "report.json"), "--chart", str(folder / "chart.png")]
    mine = {
        "TMPDIR": str(folder),
        # Importing torch's compiler makes a folder in TMPDIR, unless this names another.
        "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "torchinductor"),
        "RETRAIL_INDEX_MAX_TOKENS": "64",
        "RETRAIL_TRAIN_EPOCHS": "1",
        "RETRAIL_TRAIN_NEGATIVES": "0",
        "RETRAIL_GATE_MARGIN": "1",
        "RETRAIL_GATE_MIN_QUERIES": "1",
    }
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | mine | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(corpus: Path, folder: Path, **environment: str) -> tuple[dict[str, Any], str]:
    folder.mkdir(exist_ok=True)
    process = start(corpus, folder, **environment)
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0, output
    return json.loads((folder / "report.json").read_text()), output


def without_times(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in turn.items() if k != "seconds"} for turn in report["turns"]]


@pytest.mark.faults
def test_the_loop_closes_twice_alike_and_leaves_nothing_on_servers_of_the_users_own(
    corpus: Path, tmp_path: Path, kafka: str, milvus: str
) -> None:
    servers = {"RETRAIL_KAFKA_BOOTSTRAP": kafka, "RETRAIL_MILVUS_URI": milvus}
    first, output = run(corpus, tmp_path / "first", **servers)
    second, _ = run(corpus, tmp_path / "second", **servers)

    assert "no LLM" in output
    assert first["kafka"] == "external"
    assert first["corpus"]["needs"] == 2 * NEEDS
    before, after = first["turns"]
    assert (before["model_version"], before["pairs"]) == (1, 0)
    assert after["model_version"] == 2
    assert after["gate"]["decision"] == "ship"
    assert after["pairs"] > NEEDS
    assert after["training_steps"] > 0
    assert after["ndcg_at_10"] != before["ndcg_at_10"]
    assert 0.2 < before["ndcg_at_10"] < 1
    assert 0.2 < before["success_rate"] < 1
    assert (tmp_path / "first" / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert without_times(first) == without_times(second)

    admin = AdminClient({"bootstrap.servers": kafka})
    groups = admin.list_consumer_groups().result().valid
    assert not [name for name in admin.list_topics().topics if name.startswith("demo_")]
    assert not [group for group in groups if group.group_id.startswith("demo_")]
    client = MilvusClient(uri=milvus)
    assert not [name for name in client.list_collections() if name.startswith("demo_")]
    assert not client.list_aliases().get("aliases") or "demo_" not in str(client.list_aliases())
    client.close()
    assert not list(tmp_path.glob("*/retrail-demo-*"))


@pytest.mark.integration
def test_ctrl_c_leaves_no_process_and_no_file(corpus: Path, tmp_path: Path) -> None:
    process = start(corpus, tmp_path)
    seen: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line)
        if line.startswith("  index:"):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 5, "".join(seen)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(seen) + rest
    eventually(lambda: not any(child.is_running() for child in family), 10, "end of all children")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_corpus_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    process = start(tmp_path / "nowhere", tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nowhere is no folder" in output
    assert "Traceback" not in output
    assert "starting" not in output
