"""Candidates on real servers: decision, ``live`` and alias in this order, also after kills."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient

from consumers import releases
from consumers.indexing import candidate, collection
from consumers.indexing.collection import Row
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from retrail_runtime import kafka
from retrail_runtime.milvus import METRIC, Build
from schemas.errors import InputError, RestartRequiredError
from schemas.releases import CandidateDecision, Release
from schemas.releases import decode as decode_record
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness
from tests.consumers.training.world import metric
from tests.started_servers import standalone_in_faults
from tests.waiting import eventually
from trainer.data import candidates
from trainer.registry.registry import Registry

QUERIES = [f"{one} {other}" for one in harness.WORDS[:6] for other in harness.WORDS[6:9]]


def decisions(settings: Settings) -> list[CandidateDecision]:
    """The decisions on the log, in order."""
    records = kafka.read_to_end(settings, Topics.of(settings).retriever_releases)
    found = (decode_record(record.key, record.value) for record in records)
    return [one for one in found if isinstance(one, CandidateDecision)]


def check(settings: Settings) -> None:
    """At most one decision on each candidate, and no alias without one that ships it."""
    made = decisions(settings)
    assert len({one.version for one in made}) == len(made)
    name = harness.aliased(settings)
    known = releases.read(settings)
    if name is not None and name != f"{settings.retriever}_v1":
        version = int(name.removeprefix(f"{settings.retriever}_v").partition("_")[0])
        assert known.decision(version) == "ship"
        assert known.live is not None
        assert known.live.version == version


def a_candidate(
    settings: Settings,
    version: int,
    folder: Path,
    texts: Mapping[str, str],
    *,
    better: bool,
    **changes: Any,
) -> Release:
    """A candidate that finds, or whose parent finds, all documents that are relevant."""
    reference = harness.Reference(settings, texts)
    first = releases.read(settings).by_version[1].model
    chosen = harness.model(settings, version, version, folder) if better else first
    relevant = harness.best(reference.scores(chosen, QUERIES), QUERIES)
    return harness.candidate(settings, version, folder, relevant, texts, **changes)


def first_decision(settings: Settings, version: int) -> CandidateDecision:
    eventually(lambda: version in releases.read(settings).decisions, 90, f"a decision on {version}")
    return releases.read(settings).decisions[version]


@standalone_in_faults
def test_a_candidate_that_passes_is_decided_on_then_live_then_served(
    small: Settings, tmp_path: Path
) -> None:
    texts = harness.documents(120)
    harness.publish(small, texts)
    with harness.working(small):
        harness.serves(small, 1)
        a_candidate(small, 2, tmp_path, texts, better=True)
        harness.serves(small, 2, 90)
    [found] = decisions(small)
    assert (found.version, found.decision, found.documents) == (2, "ship", 120)
    assert found.integrity is not None
    assert (found.integrity.queries, found.integrity.found) == (len(QUERIES), 1.0)
    assert found.held_out is not None
    assert found.held_out.child_metrics.ndcg_at_10 == 1.0
    known = releases.read(small)
    assert known.live is not None
    assert (known.live.version, known.live.previous) == (2, 1)
    assert known.live.why.startswith("passed the gate: on 120 documents")
    check(small)


@standalone_in_faults
def test_a_candidate_that_is_worse_on_all_documents_is_dropped(
    small: Settings, tmp_path: Path
) -> None:
    texts = harness.documents(120)
    harness.publish(small, texts)
    with harness.working(small):
        harness.serves(small, 1)
        a_candidate(small, 2, tmp_path, texts, better=False)
        assert first_decision(small, 2).decision == "reject"
        eventually(lambda: [b.version for b in Milvus(small).builds()] == [1], what="one build")
    assert harness.aliased(small) == f"{small.retriever}_v1"
    assert candidates.state(releases.read(small), 2) == "refused"
    check(small)


def test_with_manual_approval_the_collection_waits_for_promotion(
    small: Settings, tmp_path: Path
) -> None:
    manual = small.model_copy(update={"gate": "manual"})
    texts = harness.documents(60)
    harness.publish(manual, texts)
    with harness.working(manual):
        harness.serves(manual, 1)
        a_candidate(manual, 2, tmp_path, texts, better=True)
        assert first_decision(manual, 2).decision == "pending"
        assert [build.version for build in Milvus(manual).builds()] == [1, 2]
        assert harness.aliased(manual) == f"{manual.retriever}_v1"
        releases.promote(manual, 2)
        harness.serves(manual, 2)


def test_a_promotion_supersedes_a_candidate(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(30)
    harness.publish(small, texts)
    monkeypatch.setattr(candidate, "decide", lambda *_, **__: pytest.fail("measured"))
    with harness.working(small):
        harness.serves(small, 1)
        harness.release(small, 2, 2, tmp_path, decision="hold")
        releases.promote(small, 2)
        a_candidate(small, 3, tmp_path, texts, better=True)
        harness.serves(small, 2)
        eventually(lambda: [b.version for b in Milvus(small).builds()] == [1, 2], what="two builds")
    assert candidates.state(releases.read(small), 3) == "superseded"
    assert decisions(small) == []


def break_collections(monkeypatch: pytest.MonkeyPatch, version: int) -> set[str]:
    """Write the rows of a version with the vectors of others; returns its collections."""
    upsert, built = Milvus.upsert, set[str]()

    def swap(self: Milvus, build: Build, rows: Any) -> int:
        rows = list(rows)
        if build.version == version:
            built.add(build.collection)
            vectors = [row.vector for row in rows]
            rows = [
                replace(row, vector=vector)
                for row, vector in zip(rows, vectors[1:] + vectors[:1], strict=True)
            ]
        return upsert(self, build, rows)

    monkeypatch.setattr(Milvus, "upsert", swap)
    return built


@standalone_in_faults
def test_a_collection_with_swapped_rows_is_built_again_once_and_refused(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(60)
    harness.publish(small, texts)
    built = break_collections(monkeypatch, version=2)
    with harness.working(small):
        harness.serves(small, 1)
        a_candidate(small, 2, tmp_path, texts, better=True)
        found = first_decision(small, 2)
        eventually(lambda: [b.version for b in Milvus(small).builds()] == [1], what="one build")
    assert found.decision == "failed"
    assert "vectors of other documents" in found.reason
    assert found.held_out is None, "a broken collection has no quality"
    assert len(built) == 2
    assert harness.aliased(small) == f"{small.retriever}_v1"
    known = releases.read(small)
    assert known.live is not None
    assert known.live.quarantined == ()
    with pytest.raises(InputError, match="cannot be promoted"):
        releases.promote(small, 2)
    check(small)


def test_a_promotion_does_not_override_integrity(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(60)
    harness.publish(small, texts)
    built = break_collections(monkeypatch, version=2)
    with harness.working(small):
        harness.serves(small, 1)
    a_candidate(small, 2, tmp_path, texts, better=True, decision="hold", candidate=False)
    releases.promote(small, 2)
    with pytest.raises(RestartRequiredError, match="vectors of other documents"):
        harness.run_until_it_fails(small)
    assert len(built) == 2
    assert harness.aliased(small) == f"{small.retriever}_v1"


@standalone_in_faults
def test_a_collection_with_a_far_too_coarse_index_is_refused(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(3000)
    harness.publish(small, texts)

    def coarse(field: str, vector_index: str) -> Any:
        params = MilvusClient.prepare_index_params()
        params.add_index(field, index_type="HNSW", metric_type=METRIC)
        # pymilvus flattens parameters, which Milvus Lite then ignores.
        params[0]._configs["params"] = {"M": 2, "efConstruction": 1}
        return params

    with harness.working(small):
        harness.serves(small, 1, 120)
        monkeypatch.setattr(collection, "index_params", coarse)
        a_candidate(small, 2, tmp_path, texts, better=True)
        found = first_decision(small, 2)
    assert found.decision == "failed"
    assert "too coarse" in found.reason
    assert harness.aliased(small) == f"{small.retriever}_v1"


def test_a_candidate_without_progress_is_abandoned_and_its_collection_dropped(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = small.model_copy(update={"gate_candidate_seconds": 3.0})
    texts = harness.documents(20)
    harness.publish(brief, texts)
    rows, go_on = Embedder.rows, threading.Event()

    def hold(self: Embedder, *arguments: Any) -> list[Row]:
        if self.version == 2:
            go_on.wait(60)
        return rows(self, *arguments)

    monkeypatch.setattr(Embedder, "rows", hold)
    abandoned = metric("retrail_index_candidate_decisions_total", decision="abandoned")
    with harness.working(brief):
        harness.serves(brief, 1)
        a_candidate(brief, 2, tmp_path, texts, better=True)
        try:
            found = first_decision(brief, 2)
            eventually(lambda: [b.version for b in Milvus(brief).builds()] == [1], what="one build")
        finally:
            go_on.set()
    assert found.decision == "abandoned"
    assert metric("retrail_index_candidate_decisions_total", decision="abandoned") == abandoned + 1
    assert candidates.under_way(releases.read(brief)) is None
    check(brief)


KILLS = {
    "both are measured": ("consumers.indexing", "candidate", "decide"),
    "the decision is acknowledged": ("consumers", "releases", "write_decision"),
    "live is acknowledged": ("consumers", "releases", "write_live"),
    "the alias is swapped": ("consumers.indexing.milvus", "Milvus", "swap"),
}
"""What the leader has just done when it is killed, in this order."""


def test_a_leader_killed_after_every_step_decides_once_and_never_serves_without_a_decision(
    small: Settings, tmp_path: Path
) -> None:
    settings = small.model_copy(update={"kafka_session_timeout": 1.5})
    texts = harness.documents(60)
    harness.publish(settings, texts)
    with harness.working(settings):
        harness.serves(settings, 1)
    a_candidate(settings, 2, tmp_path, texts, better=True)
    for number, (step, call) in enumerate(KILLS.items()):
        worker = harness.WorkerProcess(settings, killed_after=call)
        assert worker.process.wait(120) == -9, step
        check(settings)
        known = releases.read(settings)
        assert len(known.decisions) == (number >= 1)
        assert known.live is not None
        assert known.live.version == (2 if number >= 2 else 1)
        assert harness.aliased(settings) == f"{settings.retriever}_v{2 if number >= 3 else 1}"
    with harness.working(settings):
        harness.serves(settings, 2)
    check(settings)
    assert len(decisions(settings)) == 1
    assert Registry.of(settings).published(settings.retriever, 2) is not None
