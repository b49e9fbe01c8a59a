"""Swaps of the alias: complete, under writes and searches, back again; what is kept and dropped."""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers.indexing import metrics
from consumers.indexing.collection import Row
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from consumers.indexing.releases import request_rebuild
from retrail_runtime.milvus import Build
from schemas.errors import InputError
from schemas.settings import Settings
from serving.retriever import Retriever
from tests import index_harness as harness
from tests.started_servers import on_both, standalone_in_faults
from tests.waiting import eventually


def lags(settings: Settings) -> set[tuple[str, str]]:
    """Collections and partitions whose lag this process exports, of one installation."""
    return {
        (sample.labels["collection"], sample.labels["partition"])
        for metric in metrics.LAG.collect()
        for sample in metric.samples
        if sample.labels["collection"].startswith(settings.retriever)
    }


@standalone_in_faults
def test_searches_across_swaps_never_fail_nor_mix_models(small: Settings, tmp_path: Path) -> None:
    """The must-show: every answer is that of brute force with the model that it names."""
    texts = harness.documents(120)
    queries = [texts[name] for name in ("d3", "d50", "d99")] + ["warm river", "glass"]
    harness.publish(small, texts)
    reference = harness.Reference(small, texts)
    with harness.working(small), Retriever(small) as retriever:
        harness.serves(small, 1)
        models = harness.models(small, (2, 3), tmp_path)
        expected = {v: reference.scores(model, queries) for v, model in models.items()}
        assert not harness.is_exact(retriever.search(queries[0]).hits, expected[2][0])
        with harness.searching(retriever, queries, expected) as searches:
            for version in (2, 3, 1):
                harness.make_live(small, version)
                harness.serves(small, version)
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
        at_swap[build.version] = set(harness.rows(self, build))
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
        harness.serves(small, 1)
        writer.start()
        try:
            harness.release(small, 2, 2, tmp_path)
            harness.make_live(small, 2)
            eventually(lambda: len(Milvus(small).builds()) == 2, what="the new build")
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert harness.aliased(small) == f"{small.retriever}_v1"
            held.set()
            harness.serves(small, 2)
        finally:
            held.set()
            done.set()
            writer.join()
    assert at_swap[1] == texts.keys()
    assert at_swap[2] >= texts.keys()


@standalone_in_faults
def test_swaps_complete_with_empty_partitions(small: Settings, tmp_path: Path) -> None:
    """Partition 0 never has a record: of two workers its owner coordinates, and has no rows."""
    texts = harness.documents(20)
    states: list[dict[str, str | None]] = [{}, {**texts}, dict.fromkeys(texts)]
    with harness.working(small), harness.working(small), Retriever(small) as retriever:
        for version, state in enumerate(states, start=1):
            harness.publish_into(small, 1, state)
            if version > 1:
                harness.release(small, version, version, tmp_path)
                harness.make_live(small, version)
            harness.serves(small, version)
            assert harness.hashes(small, version) == harness.expected_hashes(state)
            eventually(lambda v=version: retriever.version() == v, what="searches of the new")
            hits = retriever.search("red stone", k=30).hits
            assert {hit.doc_id for hit in hits} == harness.expected_hashes(state).keys()


@on_both
def test_changes_during_a_build_and_after_it_reach_both_builds_and_a_rollback_is_a_swap(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: dict[str, str | None] = {**harness.documents(30)}
    go_on = threading.Event()
    rows = Embedder.rows

    def hold(self: Embedder, *arguments: Any) -> list[Row]:
        if self.version == 2:
            assert go_on.wait(60)
        return rows(self, *arguments)

    def change(changes: dict[str, str | None]) -> dict[str, str]:
        texts.update(changes)
        harness.publish(small, changes)
        return harness.expected_hashes(texts)

    monkeypatch.setattr(Embedder, "rows", hold)
    change({**texts})
    with harness.working(small):
        harness.serves(small, 1)
        before = Milvus(small).builds()[0]
        harness.release(small, 2, 2, tmp_path)
        harness.make_live(small, 2)
        try:
            eventually(lambda: len(Milvus(small).builds()) == 2, what="the new build")
            wanted = change({"d0": None, "d1": "changed meanwhile", "in": "inserted meanwhile"})
            eventually(lambda: harness.hashes(small, 1) == wanted, what="the changes in the live")
            assert not harness.hashes(small, 2)
        finally:
            go_on.set()
        harness.serves(small, 2)
        assert harness.hashes(small, 2) == wanted

        wanted = change({"d2": None, "d1": "changed again", "in": None, "late": "after the swap"})
        for version in (2, 1):
            eventually(lambda v=version: harness.hashes(small, v) == wanted, what="the changes")

        harness.make_live(small, 1)
        began = time.monotonic()
        harness.serves(small, 1)
        assert time.monotonic() - began < 5
        assert next(build for build in Milvus(small).builds() if build.version == 1) == replace(
            before, served=True
        )
        assert harness.hashes(small, 1) == wanted


@standalone_in_faults
def test_after_the_grace_time_the_collection_is_dropped(small: Settings, tmp_path: Path) -> None:
    brief = small.model_copy(update={"index_grace_seconds": 0.5})
    harness.publish(brief, harness.documents(10))
    with harness.working(brief):
        harness.serves(brief, 1)
        harness.release(brief, 2, 2, tmp_path)
        harness.make_live(brief, 2)
        harness.serves(brief, 2)
        eventually(lambda: [b.version for b in Milvus(brief).builds()] == [2], what="one build")
        serving = f"{brief.retriever}_v2"
        eventually(lambda: {c for c, _ in lags(brief)} == {serving}, what="the lag of one build")


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
        harness.serves(small, 1)
        for version in (2, 3):
            harness.release(small, version, version, tmp_path)
        harness.make_live(small, 2)
        assert reached.wait(60)
        harness.make_live(small, 3)
        eventually(
            lambda: [b.version for b in Milvus(small).builds()] == [1, 3], what="2 abandoned"
        )
        resume.set()
        harness.serves(small, 3)
        assert harness.hashes(small, 3).keys() == texts.keys()


def test_a_release_superseded_while_milvus_indexes_it_is_abandoned(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(20)
    harness.publish(small, texts)
    indexes = threading.Event()

    def without_end(_: Milvus, build: Build) -> int:
        if build.version == 2:
            indexes.set()
        return 5 if build.version == 2 else 0

    monkeypatch.setattr(Milvus, "_unindexed", without_end)
    with harness.working(small):
        harness.serves(small, 1)
        for version in (2, 3):
            harness.release(small, version, version, tmp_path)
        harness.make_live(small, 2)
        assert indexes.wait(60)
        harness.make_live(small, 3)
        harness.serves(small, 3)
        assert harness.hashes(small, 3).keys() == texts.keys()


@standalone_in_faults
def test_a_rebuild_is_swapped_in_complete_while_the_collection_before_serves(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = small.model_copy(update={"index_grace_seconds": 2.0})
    texts: dict[str, str | None] = {**harness.documents(30)}
    harness.publish(brief, texts)
    go_on = threading.Event()
    make_searchable = Milvus.make_searchable

    def hold(self: Milvus, build: Build, waits: Callable[[int], object]) -> bool:
        if "_v1_" in build.collection:
            assert go_on.wait(60)
        return make_searchable(self, build, waits)

    monkeypatch.setattr(Milvus, "make_searchable", hold)
    milvus, first = Milvus(brief), f"{brief.retriever}_v1"
    with harness.working(brief), Retriever(brief) as retriever:
        harness.serves(brief, 1)
        before = milvus.builds()[0]
        name = request_rebuild(brief)
        try:
            eventually(lambda: len(milvus.builds()) == 2, what="the rebuild beside")
            changes = {"d0": None, "d1": "changed meanwhile", "in": "inserted meanwhile"}
            texts |= changes
            harness.publish(brief, changes)
            wanted = harness.expected_hashes(texts)
            for build in milvus.builds():
                eventually(lambda b=build: harness.rows(milvus, b) == wanted, what="the changes")
            eventually(lambda: {c for c, _ in lags(brief)} == {first, name}, what="both lags")
            assert milvus.aliased() == first
            assert retriever.open("in") is not None
        finally:
            go_on.set()
        eventually(lambda: milvus.aliased() == name, 60, "the swap")
        eventually(lambda: [b.collection for b in milvus.builds()] == [name], what="one build")
        eventually(lambda: {c for c, _ in lags(brief)} == {name}, what="the lag of one build")
        after = milvus.builds()[0]
        assert after.build_id != before.build_id
        assert (after.version, after.digest, after.served) == (1, before.digest, True)
        assert harness.rows(milvus, after) == wanted
        assert retriever.search("changed meanwhile", k=1).hits[0].doc_id == "d1"


@standalone_in_faults
def test_a_rebuild_asked_for_without_a_worker_outlives_restarts(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(30)
    harness.publish(small, texts)
    go_on = threading.Event()
    swap = Milvus.swap

    def hold(self: Milvus, build: Build) -> None:
        if "_v1_" in build.collection and not go_on.is_set():
            raise InterruptedError("killed before the swap")
        swap(self, build)

    monkeypatch.setattr(Milvus, "swap", hold)
    with harness.working(small):
        harness.serves(small, 1)
    name, milvus = request_rebuild(small), Milvus(small)
    with pytest.raises(InterruptedError):
        harness.run_until_it_fails(small)
    begun = next(build for build in milvus.builds() if build.collection == name)
    assert milvus.aliased() == f"{small.retriever}_v1"
    go_on.set()
    with harness.working(small):
        eventually(lambda: milvus.aliased() == name, 60, "the swap")
    assert replace(begun, served=True) in milvus.builds()
    assert harness.rows(milvus, begun) == harness.expected_hashes(texts)


def test_a_rebuild_needs_a_collection_of_the_live_release(small: Settings) -> None:
    with pytest.raises(InputError, match="has no collection yet"):
        request_rebuild(small)


def test_another_search_mode_takes_effect_with_a_rebuild_while_searches_go_on(
    small: Settings,
) -> None:
    """The retriever's own setting is dense all along: it searches as the collection says."""
    hybrid = small.model_copy(update={"index_search": "hybrid"})
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
            harness.serves(small, 1)
        before = milvus.builds()
        searching = threading.Thread(target=search)
        searching.start()
        try:
            with harness.working(hybrid):
                # A setting alone changes nothing: a worker that builds nothing follows what is.
                harness.publish(small, {"early": "before the rebuild"})
                eventually(lambda: "early" in harness.rows(milvus, before[0]), what="the change")
                assert milvus.builds() == before
                name = request_rebuild(small)
                eventually(lambda: milvus.aliased() == name, 60, "the swap")
                assert {b.search for b in milvus.builds()} == {"dense", "hybrid"}
                eventually(lambda: by_words("zyzzyva") == "rare", what="a search by words")
            # A worker with the other setting keeps the collection as it is.
            with harness.working(small):
                harness.publish(small, {"late": "quokka", "rare": "another text"})
                for build in milvus.builds():
                    eventually(lambda b=build: "late" in harness.rows(milvus, b), what="the change")
                eventually(lambda: by_words("zyzzyva") is None, what="the change of words")
                assert by_words("quokka") == "late"
                assert milvus.aliased() == name
        finally:
            done.set()
            searching.join()
        assert not missed


def test_another_search_mode_takes_effect_with_the_next_release(
    small: Settings, tmp_path: Path
) -> None:
    harness.publish(small, harness.documents(10))
    with harness.working(small):
        harness.serves(small, 1)
    hybrid = small.model_copy(update={"index_search": "hybrid"})
    with harness.working(hybrid):
        harness.release(small, 2, 2, tmp_path)
        harness.make_live(small, 2)
        harness.serves(small, 2)
        assert [b.search for b in Milvus(small).builds()] == ["dense", "hybrid"]
        harness.make_live(small, 1)
        harness.serves(small, 1)
