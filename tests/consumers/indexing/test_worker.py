"""The index worker on real Apache Kafka and Milvus: builds, live changes, swaps."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import REGISTRY
from pymilvus import MilvusClient
from structlog.testing import capture_logs

from consumers import releases
from consumers.indexing import coordinator
from consumers.indexing import worker as module
from consumers.indexing.collection import Row
from consumers.indexing.embedder import Embedder
from consumers.indexing.metrics import DOCUMENTS_ENCODED
from consumers.indexing.milvus import Milvus
from consumers.indexing.plan import Assignment, group
from consumers.indexing.releases import await_documents
from deploy.milvus import MilvusLite
from retrail_runtime import health, kafka, milvus
from retrail_runtime.health import State, serve_metrics
from schemas.base import DeadLetter
from schemas.errors import ConfigurationError, MilvusUnavailableError, ModelError, NoIndexError
from schemas.releases import Live
from schemas.settings import Settings
from schemas.topics import Topics
from serving.retriever import Retriever
from tests import index_harness as harness
from tests.started_servers import standalone_in_faults
from tests.waiting import eventually
from trainer.model.encoder import Encoder


@standalone_in_faults
def test_first_start_builds_version_1_and_live_changes_reach_it(small: Settings) -> None:
    texts = harness.documents(50)
    harness.publish(small, texts)
    with Retriever(small) as retriever:
        with pytest.raises(NoIndexError, match="retrail worker index"):
            retriever.search("red stone")
        with harness.working(small):
            harness.serves(small, 1)
            assert harness.hashes(small, 1).keys() == texts.keys()
            assert REGISTRY.get_sample_value("retrail_live_version") == 1
            since = REGISTRY.get_sample_value("retrail_live_release_timestamp_seconds")
            assert since is not None
            assert 0 <= time.time() - since < 300
            result = retriever.search(texts["d7"], k=3)
            assert result.retriever_version == 1
            assert result.hits[0].doc_id == "d7"
            assert result.hits[0].score == pytest.approx(1, abs=0.02)
            assert [hit.rank for hit in result.hits] == [1, 2, 3]

            harness.publish(small, {"new": "an utterly new text", "d7": None, "d8": "changed"})
            found = eventually(lambda: retriever.open("new"), what="the new document")
            assert found.text == "an utterly new text"
            eventually(lambda: retriever.open("d7") is None, what="the deletion")
            eventually(lambda: retriever.open("d8").text == "changed", what="the change")


@standalone_in_faults
def test_searches_of_an_empty_or_half_built_index_say_so(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "PROGRESS_SECONDS", 0.2)
    gate, rows = threading.Event(), Embedder.rows

    def waiting(*arguments: Any) -> Any:
        assert gate.wait(60)
        return rows(*arguments)

    def refusal(retriever: Retriever) -> str:
        with pytest.raises(NoIndexError) as raised:
            retriever.search("red stone")
        return raised.value.progress

    monkeypatch.setattr(Embedder, "rows", waiting)
    harness.publish(small, harness.documents(50))
    with Retriever(small) as retriever, harness.working(small):
        eventually(lambda: refusal(retriever) == "0% of all documents indexed")
        gate.set()
        harness.serves(small, 1)
        eventually(lambda: not retriever.search("red stone").note)
        gate.clear()
        harness.publish(small, harness.documents(30, start=50))
        eventually(lambda: retriever.search("x").note == "62% of all documents indexed")
        with pytest.raises(NoIndexError, match=r"30 records of .* are not in it"):
            await_documents(small, lambda left: None, patience=0.5)
        seen: list[int] = []
        gate.set()
        await_documents(small, seen.append)
        assert (seen[-1], harness.hashes(small, 1).keys()) == (0, harness.documents(80).keys())
        eventually(lambda: not retriever.search("x").note)
        harness.publish(small, dict.fromkeys(harness.documents(80)))
        await_documents(small, seen.append)
        empty = retriever.search("x")
        assert (empty.hits, empty.note) == ([], "The index holds no documents.")


@standalone_in_faults
def test_invalid_records_are_dead_lettered_once_and_block_nothing(
    small: Settings, topics: Topics
) -> None:
    harness.publish(small, {"a": "first text", "b": "second text"})
    producer = kafka.producer(small)
    kafka.publish_and_wait(
        producer, topics.documents, key=b"bad", value=b"{", headers=[("x", b"y")]
    )
    kafka.publish_and_wait(producer, topics.documents, key=b"b", value=b"[]")
    harness.publish(small, {"c": "third text"})
    with harness.working(small):
        harness.serves(small, 1)
        assert harness.hashes(small, 1).keys() == {"a", "c"}
        harness.release(small, 2, 2, small.data_dir)
        harness.make_live(small, 2)
        harness.serves(small, 2)
        assert harness.hashes(small, 2).keys() == {"a", "c"}
    letters = list(kafka.read_to_end(small, topics.documents_dlq))
    assert sorted((letter.key, letter.value) for letter in letters) == [
        (b"b", b"[]"),
        (b"bad", b"{"),
    ]
    letter = next(letter for letter in letters if letter.key == b"bad")
    assert ("x", b"y") in letter.headers
    assert DeadLetter.read(letter.headers).stage == "index"


def test_a_live_record_of_another_program_changes_nothing_until_an_operator_decides(
    small: Settings,
) -> None:
    harness.publish(small, harness.documents(10))
    producer, foreign = kafka.producer(small), []
    with capture_logs() as logged, harness.working(small):
        harness.serves(small, 1)
        shipped = harness.release(small, 2, 2, small.data_dir)
        held = shipped.model_copy(update={"version": 3, "decision": "hold"})
        releases.write_release(producer, small, held)
        for version in (9, 3):
            live = Live(version=version, why="", changed_at=shipped.created_at)
            foreign.append(releases.write_live(producer, small, live))
        harness.make_live(small, 2)
        harness.serves(small, 2)
        assert {build.version for build in Milvus(small).builds()} == {1, 2}
        releases.promote(small, 3)
        harness.serves(small, 3)
    refused = [entry for entry in logged if entry["event"].startswith("record refused")]
    assert [entry["offset"] for entry in refused] == foreign, "one line a record, not one a tick"
    assert all("retrail promote VERSION" in entry["remedy"] for entry in refused)


def test_texts_are_not_encoded_again_after_a_restart(small: Settings) -> None:
    texts = harness.documents(30)
    harness.publish(small, texts)

    def encoded() -> float:
        return DOCUMENTS_ENCODED.labels("1")._value.get()

    with harness.working(small):
        harness.serves(small, 1)
    milvus = Milvus(small)
    lost = milvus.builds()[0]
    milvus.drop(lost)
    before = encoded()
    with harness.working(small):
        harness.serves(small, 1)
        assert harness.hashes(small, 1).keys() == texts.keys()
        assert milvus.builds()[0].build_id != lost.build_id
        assert encoded() == before
        harness.publish(small, {"new": "a text that is new", "d3": texts["d4"]})
        eventually(lambda: "new" in harness.hashes(small, 1), what="the new row")
    assert encoded() == before + 1


@standalone_in_faults
def test_a_dropped_collection_is_built_again(small: Settings) -> None:
    texts = harness.documents(30)
    harness.publish(small, texts)
    with harness.working(small), Retriever(small) as retriever:
        harness.serves(small, 1)
        retriever.search("anything")
        milvus = Milvus(small)
        before = milvus.builds()[0]
        milvus.drop(before)
        eventually(
            lambda: harness.aliased(small) and milvus.builds()[0].build_id != before.build_id,
            60,
            "another build",
        )
        assert harness.hashes(small, 1).keys() == texts.keys()
        assert retriever.search(texts["d3"], k=1).hits[0].doc_id == "d3"


@standalone_in_faults
def test_the_comparison_repairs_what_was_overwritten(small: Settings) -> None:
    often = small.model_copy(update={"index_compare_seconds": 0.5})
    texts = harness.documents(20)
    harness.publish(often, texts)
    with harness.working(often):
        harness.serves(often, 1)
        right = harness.hashes(often, 1)
        milvus = Milvus(often)
        build = milvus.builds()[0]
        vector = np.full(32, 32**-0.5, dtype=np.float32)
        milvus.upsert(
            build, [Row("d1", "", "old", "0" * 32, vector), Row("x", "", "x", "0", vector)]
        )
        milvus.delete(build, ["d2"])
        eventually(lambda: harness.rows(milvus, build) == right, what="the repair")
        with Retriever(often) as retriever:
            assert retriever.open("d1").text == texts["d1"]  # type: ignore[union-attr]


def test_hybrid_search_on_an_old_server_is_refused_at_the_start(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MilvusClient, "get_server_version", lambda *_, **__: "v2.4.9")
    with pytest.raises(ConfigurationError, match="RETRAIL_INDEX_SEARCH=dense"):
        module.run(small.model_copy(update={"index_search": "hybrid"}))


@standalone_in_faults
def test_two_workers_share_a_build(small: Settings) -> None:
    texts = harness.documents(400)
    harness.publish(small, {"only": "one document"})
    with harness.working(small), harness.working(small):
        harness.serves(small, 1)
        admin = kafka.admin(small)
        topic_id = kafka.topic_id(admin, Topics.of(small).documents)
        members = group(small.group("index"), Assignment(Milvus(small).builds()[0], topic_id))

        def partitions() -> list[int]:
            answer = admin.describe_consumer_groups([members])[members].result()
            return [len(one.assignment.topic_partitions) for one in answer.members]

        eventually(lambda: partitions() == [1, 1], what="one partition each")
        harness.publish(small, texts)
        eventually(lambda: len(harness.hashes(small, 1)) == 401, what="all rows")


@standalone_in_faults
def test_a_worker_killed_in_mid_build_resumes(small: Settings) -> None:
    texts = harness.documents(1500)
    harness.publish(small, texts)
    small = small.model_copy(update={"kafka_session_timeout": 6.0})
    first = harness.WorkerProcess(small, slow=True)
    try:
        encoded = "retrail_index_documents_encoded_total"
        eventually(lambda: first.metric(encoded) >= 2 * 256, 90, "a build that has begun")
    finally:
        first.end(signal.SIGKILL)
    assert harness.aliased(small) is None
    begun = Milvus(small).builds()[0]
    again = harness.WorkerProcess(small)
    try:
        harness.serves(small, 1, 120)
        assert again.metric(encoded) <= len(texts) - 256
        assert Milvus(small).builds() == (replace(begun, served=True),)
        assert harness.hashes(small, 1).keys() == texts.keys()
    finally:
        assert again.end(signal.SIGTERM) == 0


def pages(port: int) -> dict[str, tuple[int, str]]:
    """Status and text of the pages of health."""
    found = {page: httpx.get(f"http://127.0.0.1:{port}/{page}") for page in ("healthz", "readyz")}
    return {page: (answer.status_code, answer.text.strip()) for page, answer in found.items()}


def both(state: State) -> dict[str, tuple[int, str]]:
    alive, ready, detail = state.value
    return {"healthz": (200 if alive else 503, detail), "readyz": (200 if ready else 503, detail)}


def test_a_stuck_build_changes_the_pages_of_health_and_a_slow_one_does_not(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SLOW_SECONDS", 2.0)
    monkeypatch.setattr(health, "STUCK_SECONDS", 6.0)
    stuck, resume, chunks, seen = threading.Event(), threading.Event(), list[float](), list[str]()
    forward, rows = Encoder._try_forward, Embedder.rows

    def batch(*arguments: Any) -> Any:
        resume.wait() if stuck.is_set() else time.sleep(1.0)
        return forward(*arguments)

    def chunk(*arguments: Any) -> Any:
        began = time.monotonic()
        found = rows(*arguments)
        chunks.append(time.monotonic() - began)
        return found

    monkeypatch.setattr(Encoder, "_try_forward", batch)
    monkeypatch.setattr(Embedder, "rows", chunk)
    texts = harness.documents(300)
    harness.publish_into(small, 0, texts)
    with harness.working(small) as worker:
        port = serve_metrics(small, "index", worker.health)

        def working() -> bool:
            seen.append(pages(port)["readyz"][1])
            return seen[-1] == "working"

        eventually(working, 60, "build")
        assert max(chunks) > 2.0, "no chunk took longer than a worker may be without progress"
        assert set(seen) <= {"starting", "working"}
        stuck.set()
        harness.publish(small, {"more": "an utterly new text"})
        try:
            eventually(lambda: pages(port) == both(State.SLOW), 10, "slow")
            eventually(lambda: pages(port) == both(State.STUCK), 10, "stuck")
        finally:
            resume.set()
        eventually(lambda: pages(port) == both(State.WORKING), 20, "progress")
        assert "more" in harness.hashes(small, 1)


def test_a_hanging_milvus_changes_the_pages_of_health(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SLOW_SECONDS", 2.0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(milvus, "CALL_TIMEOUT", 3.0)
    server = MilvusLite(tmp_path / "milvus", tmp_path / "milvus.log")
    server.start()
    assert server.child is not None
    assert server.child.pid is not None
    own = small.model_copy(update={"milvus_uri": server.client_address})
    harness.publish(own, harness.documents(20))
    try:
        with harness.working(own) as worker:
            port = serve_metrics(own, "index", worker.health)
            eventually(lambda: pages(port) == both(State.WORKING), 60, "build")
            os.kill(server.child.pid, signal.SIGSTOP)
            eventually(lambda: pages(port) == both(State.SLOW), 6, "a hanging call")
            waiting = {
                "healthz": (200, "waiting for milvus"),
                "readyz": (503, "waiting for milvus"),
            }
            eventually(lambda: pages(port) == waiting, 6, "a call that was given up")
            os.kill(server.child.pid, signal.SIGCONT)
            eventually(lambda: pages(port) == both(State.WORKING), 30, "Milvus")
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
        server.stop()


def test_it_fails_fast_without_milvus(small: Settings) -> None:
    nowhere = small.model_copy(update={"milvus_uri": "http://127.0.0.1:1"})
    with pytest.raises(MilvusUnavailableError, match="RETRAIL_MILVUS_URI"):
        module.run(nowhere)


def test_a_first_model_that_does_not_exist_ends_the_worker(small: Settings) -> None:
    with pytest.raises(ModelError, match="no model folder '/nowhere'"):
        module.run(small.model_copy(update={"model": "/nowhere"}))
