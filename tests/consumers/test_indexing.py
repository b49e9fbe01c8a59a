"""The index worker on real Apache Kafka and Milvus: builds, live changes, swaps."""

import itertools
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient
from pymilvus import MilvusClient

from consumers import indexing, kafka
from consumers.index_embedder import Embedder
from consumers.index_metrics import DOCUMENTS_ENCODED
from consumers.index_milvus import Milvus, Row
from schemas.collection import Build
from schemas.errors import ConfigurationError, MilvusUnavailable, ModelError, NoIndexYet
from schemas.headers import DeadLetter
from schemas.releases import Model
from schemas.settings import Settings
from schemas.topics import Topics
from serving.retriever import Retriever
from tests import index_harness as harness
from tests.servers import on_both, standalone_in_faults
from tests.tiny_model import write_tiny_model
from tests.waiting import eventually


@pytest.fixture
def small(settings: Settings, topics: Topics, tmp_path: Path) -> Settings:
    model = write_tiny_model(tmp_path / "first", seed=1)
    return settings.model_copy(update={"model": str(model), "max_tokens": 64})


def hashes(settings: Settings, version: int) -> dict[str, str]:
    milvus = Milvus(settings)
    found = [build for build in milvus.builds() if build.version == version]
    return milvus.hashes(found[0]) if found else {}


def aliased(settings: Settings) -> str | None:
    return Milvus(settings).aliased()


def serves(settings: Settings, version: int, timeout: float = 60) -> None:
    milvus = Milvus(settings)
    name = f"{settings.retriever}_v{version}"
    eventually(lambda: milvus.aliased() == name, timeout, f"alias on version {version}")


@standalone_in_faults
def test_first_start_builds_version_1_and_live_changes_reach_it(small: Settings) -> None:
    texts = harness.documents(50)
    harness.publish(small, texts)
    with Retriever(small) as retriever:
        with pytest.raises(NoIndexYet, match="retrail worker index"):
            retriever.search("red stone")
        with harness.working(small):
            serves(small, 1)
            assert hashes(small, 1).keys() == texts.keys()
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
def test_poison_is_set_aside_once_and_blocks_nothing(small: Settings, topics: Topics) -> None:
    harness.publish(small, {"a": "first text", "b": "second text"})
    producer = kafka.producer(small)
    kafka.publish_and_wait(
        producer, topics.documents, key=b"bad", value=b"{", headers=[("x", b"y")]
    )
    kafka.publish_and_wait(producer, topics.documents, key=b"b", value=b"[]")
    harness.publish(small, {"c": "third text"})
    with harness.working(small):
        serves(small, 1)
        assert hashes(small, 1).keys() == {"a", "c"}
        harness.release(small, 2, 2, small.data_dir)
        harness.make_live(small, 2)
        serves(small, 2)
        assert hashes(small, 2).keys() == {"a", "c"}
    letters = list(kafka.read_to_end(small, topics.documents_dlq))
    assert sorted((letter.key, letter.value) for letter in letters) == [
        (b"b", b"[]"),
        (b"bad", b"{"),
    ]
    letter = next(letter for letter in letters if letter.key == b"bad")
    assert ("x", b"y") in letter.headers
    assert DeadLetter.read(letter.headers).stage == "index"


@standalone_in_faults
def test_searches_across_swaps_never_fail_nor_mix_models(small: Settings, tmp_path: Path) -> None:
    """The must-show: every answer is that of brute force with the model that it names."""
    texts = harness.documents(120)
    queries = [texts[name] for name in ("d3", "d50", "d99")] + ["warm river", "glass"]
    harness.publish(small, texts)
    reference = harness.Reference(small, texts)
    with harness.working(small), Retriever(small) as retriever:
        serves(small, 1)
        build = Milvus(small).builds()[0]
        models = {1: Model(location=build.location, digest=build.digest)}
        for version in (2, 3):
            models[version] = harness.release(small, version, version, tmp_path).model
        expected = {v: reference.scores(model, queries) for v, model in models.items()}
        assert not harness.is_exact(retriever.search(queries[0]).hits, expected[2][0])
        with harness.searching(retriever, queries, expected) as searches:
            for version in (2, 3, 1):
                harness.make_live(small, version)
                serves(small, version)
                eventually(lambda v=version: searches.answered_by(v), what="searches of the new")
    assert not searches.failures
    assert not searches.wrong
    assert set(searches.versions) == {1, 2, 3}


@standalone_in_faults
def test_a_swap_waits_for_the_whole_build_also_under_steady_writes(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(30)
    harness.publish(small, texts)
    held, done = threading.Event(), threading.Event()
    rows, swap = Embedder.rows, Milvus.swap
    at_swap: dict[int, set[str]] = {}

    def hold(self: Embedder, *arguments: Any) -> list[Row]:
        if self.version == 2:
            held.wait(30)
        return rows(self, *arguments)

    def look_and_swap(self: Milvus, build: Build) -> None:
        at_swap[build.version] = set(self.hashes(build))
        swap(self, build)

    def write() -> None:
        for number in itertools.count():
            if done.wait(0.02):
                return
            harness.publish(small, {f"w{number % 50}": f"written {number}"})

    monkeypatch.setattr(Embedder, "rows", hold)
    monkeypatch.setattr(Milvus, "swap", look_and_swap)
    writer = threading.Thread(target=write)
    with harness.working(small):
        serves(small, 1)
        writer.start()
        try:
            harness.release(small, 2, 2, tmp_path)
            harness.make_live(small, 2)
            eventually(lambda: len(Milvus(small).builds()) == 2, what="the new build")
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert aliased(small) == f"{small.retriever}_v1"
            held.set()
            serves(small, 2)
        finally:
            held.set()
            done.set()
            writer.join()
    assert at_swap[1] == texts.keys()
    assert at_swap[2] >= texts.keys()


@on_both
def test_a_rollback_is_a_swap_and_changes_have_reached_the_build_kept(
    small: Settings, tmp_path: Path
) -> None:
    harness.publish(small, harness.documents(30))
    with harness.working(small):
        serves(small, 1)
        before = {build.version: build.build_id for build in Milvus(small).builds()}
        harness.release(small, 2, 2, tmp_path)
        harness.make_live(small, 2)
        serves(small, 2)
        harness.publish(small, {"d0": None, "late": "arrived after the swap"})
        eventually(lambda: "late" in hashes(small, 2), what="the change in the live build")
        harness.make_live(small, 1)
        began = time.monotonic()
        serves(small, 1)
        assert time.monotonic() - began < 5
        assert {b.version: b.build_id for b in Milvus(small).builds()}[1] == before[1]
        rows = hashes(small, 1)
        assert "late" in rows
        assert "d0" not in rows


@standalone_in_faults
def test_after_the_grace_time_collection_and_group_are_dropped(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.index_groups.PAUSE", 0.2)
    brief = small.model_copy(update={"grace_seconds": 0.5})
    harness.publish(brief, harness.documents(10))
    admin = AdminClient(brief.kafka())

    def groups() -> set[str]:
        listed = admin.list_consumer_groups(request_timeout=10).result().valid
        return {g.group_id for g in listed if f"{brief.retriever}_v" in g.group_id}

    with harness.working(brief):
        serves(brief, 1)
        harness.release(brief, 2, 2, tmp_path)
        harness.make_live(brief, 2)
        serves(brief, 2)
        eventually(lambda: [b.version for b in Milvus(brief).builds()] == [2], what="one build")
        eventually(lambda: len(groups()) == 1, what="one group")
        assert f"_v2-{Milvus(brief).builds()[0].build_id}" in groups().pop()


@standalone_in_faults
def test_a_release_superseded_during_its_build_is_abandoned(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(20)
    harness.publish(small, texts)
    reached, resume = threading.Event(), threading.Event()
    probe = Milvus.probe

    def slow(self: Milvus, build: object) -> bool:
        if getattr(build, "version", 0) == 2:
            reached.set()
            resume.wait(30)
        return probe(self, build)  # type: ignore[arg-type]

    monkeypatch.setattr(Milvus, "probe", slow)
    with harness.working(small):
        serves(small, 1)
        for version in (2, 3):
            harness.release(small, version, version, tmp_path)
        harness.make_live(small, 2)
        assert reached.wait(60)
        harness.make_live(small, 3)
        eventually(
            lambda: [b.version for b in Milvus(small).builds()] == [1, 3], what="2 abandoned"
        )
        resume.set()
        serves(small, 3)
        assert hashes(small, 3).keys() == texts.keys()


def test_texts_are_not_encoded_again_after_a_restart(small: Settings) -> None:
    texts = harness.documents(30)
    harness.publish(small, texts)

    def encoded() -> float:
        return DOCUMENTS_ENCODED.labels("1")._value.get()

    with harness.working(small):
        serves(small, 1)
    milvus = Milvus(small)
    lost = milvus.builds()[0]
    milvus.drop(lost)
    before = encoded()
    with harness.working(small):
        serves(small, 1)
        assert hashes(small, 1).keys() == texts.keys()
        assert milvus.builds()[0].build_id != lost.build_id
        assert encoded() == before
        harness.publish(small, {"new": "a text that is new", "d3": texts["d4"]})
        eventually(lambda: "new" in hashes(small, 1), what="the new row")
    assert encoded() == before + 1


@standalone_in_faults
def test_a_dropped_collection_is_built_anew(small: Settings) -> None:
    texts = harness.documents(30)
    harness.publish(small, texts)
    with harness.working(small), Retriever(small) as retriever:
        serves(small, 1)
        retriever.search("anything")
        milvus = Milvus(small)
        before = milvus.builds()[0]
        milvus.drop(before)
        eventually(
            lambda: aliased(small) and milvus.builds()[0].build_id != before.build_id,
            60,
            "another build",
        )
        assert hashes(small, 1).keys() == texts.keys()
        assert retriever.search(texts["d3"], k=1).hits[0].doc_id == "d3"


@standalone_in_faults
def test_the_comparison_repairs_what_was_overwritten(small: Settings) -> None:
    often = small.model_copy(update={"compare_seconds": 0.5})
    texts = harness.documents(20)
    harness.publish(often, texts)
    with harness.working(often):
        serves(often, 1)
        right = hashes(often, 1)
        milvus = Milvus(often)
        build = milvus.builds()[0]
        vector = np.full(32, 32**-0.5, dtype=np.float32)
        milvus.upsert(
            build, [Row("d1", "", "old", "0" * 32, vector), Row("x", "", "x", "0", vector)]
        )
        milvus.delete(build, ["d2"])
        eventually(lambda: milvus.hashes(build) == right, what="the repair")
        with Retriever(often) as retriever:
            assert retriever.open("d1").text == texts["d1"]  # type: ignore[union-attr]


def test_another_search_mode_is_built_beside_and_swapped_while_searches_go_on(
    small: Settings,
) -> None:
    """The retriever's own setting is dense all along: it searches as the build says."""
    hybrid = small.model_copy(update={"search": "hybrid"})
    texts = harness.documents(40) | {"rare": "an unheard-of zyzzyva"}
    harness.publish(small, texts)
    missed: list[str] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                found = retriever.search(texts["d3"], k=5)
                if found.hits[0].doc_id != "d3" or found.retriever_version != 1:
                    missed.append(f"{found.hits}")
        except BaseException as error:
            missed.append(repr(error))

    def by_words(query: str) -> str | None:
        """The document that both halves found: the score of one half is at most 1/61."""
        best = retriever.search(query, k=50).hits[0]
        return best.doc_id if 0.02 < best.score < 0.04 else None

    milvus = Milvus(small)
    with Retriever(small) as retriever:
        with harness.working(small):
            serves(small, 1)
        before = milvus.builds()
        searching = threading.Thread(target=search)
        searching.start()
        try:
            with harness.working(hybrid):
                eventually(
                    lambda: milvus.aliased() == f"{small.retriever}_v1_hybrid", 60, "the swap"
                )
                assert set(milvus.builds()) > set(before)
                eventually(lambda: by_words("zyzzyva") == "rare", what="a search by words")
                # A worker of before the change follows what there is, and changes nothing.
                with harness.working(small):
                    harness.publish(small, {"late": "quokka", "rare": "another text"})
                    for build in milvus.builds():
                        eventually(lambda b=build: "late" in milvus.hashes(b), what="the change")
                    eventually(lambda: by_words("zyzzyva") is None, what="the change of words")
                    assert by_words("quokka") == "late"
                    assert len(milvus.builds()) == 2
                    assert milvus.aliased() == f"{small.retriever}_v1_hybrid"
        finally:
            done.set()
            searching.join()
        assert not missed


def test_hybrid_search_on_an_old_server_is_refused_at_the_start(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MilvusClient, "get_server_version", lambda *_, **__: "v2.4.9")
    with pytest.raises(ConfigurationError, match="RETRAIL_SEARCH=dense"):
        indexing.run(small.model_copy(update={"search": "hybrid"}))


@standalone_in_faults
def test_two_workers_share_a_build(small: Settings) -> None:
    texts = harness.documents(400)
    harness.publish(small, {"only": "one document"})
    with harness.working(small) as one, harness.working(small) as two:
        serves(small, 1)
        eventually(
            lambda: (
                all(
                    len(ingest.owned) == 1
                    for worker in (one, two)
                    for ingest in worker._ingests.values()
                )
                and len(one._ingests) == len(two._ingests) == 1
            ),
            what="one partition each",
        )
        harness.publish(small, texts)
        eventually(lambda: len(hashes(small, 1)) == 401, what="all rows")


@standalone_in_faults
def test_a_worker_killed_in_mid_build_resumes(small: Settings) -> None:
    texts = harness.documents(1500)
    harness.publish(small, texts)
    small = small.model_copy(update={"kafka_session_timeout": 6.0})
    first = harness.WorkerProcess(small.model_copy(update={"encode_batch": 1}))
    try:
        encoded = "retrail_documents_encoded_total"
        eventually(lambda: first.metric(encoded) >= 2 * 256, 90, "a build that has begun")
    finally:
        first.end(signal.SIGKILL)
    assert aliased(small) is None
    begun = Milvus(small).builds()[0]
    again = harness.WorkerProcess(small)
    try:
        serves(small, 1, 120)
        assert again.metric(encoded) <= len(texts) - 256
        assert Milvus(small).builds() == (replace(begun, served=True),)
        assert hashes(small, 1).keys() == texts.keys()
    finally:
        assert again.end(signal.SIGTERM) == 0


def test_it_fails_fast_without_milvus(small: Settings) -> None:
    nowhere = small.model_copy(update={"milvus_uri": "http://127.0.0.1:1"})
    with pytest.raises(MilvusUnavailable, match="RETRAIL_MILVUS_URI"):
        indexing.run(nowhere)


def test_a_first_model_that_does_not_exist_ends_the_worker(small: Settings) -> None:
    with pytest.raises(ModelError, match="no model folder '/nowhere'"):
        indexing.run(small.model_copy(update={"model": "/nowhere"}))
