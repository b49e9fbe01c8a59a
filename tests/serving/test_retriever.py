"""The retriever against a real Milvus Lite server, with encoders of plain numbers."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from consumers.indexing import collection
from consumers.indexing.milvus import Milvus
from deploy.milvus import MilvusLite
from retrail_runtime.milvus import TENANT_FIELD
from schemas import SearchMode
from schemas.documents import may_see
from schemas.errors import MilvusUnavailableError, ModelError, NoIndexError, NoTenantsError
from schemas.settings import Settings
from serving import retriever as module
from serving.retriever import Retriever
from tests.serving.numbers import DIMENSION, URLS, numbers, put, settings_for
from tests.waiting import eventually


def test_hits_come_by_rank_with_the_version_that_answered(here: Settings) -> None:
    put(here, 3, ["a", "b", "c"])
    with Retriever(here, load=numbers) as retriever:
        result = retriever.search("b", k=2)
        assert result.retriever_version == 3
        assert [hit.rank for hit in result.hits] == [1, 2]
        best = result.hits[0]
        assert (best.doc_id, best.title, best.text) == ("b", "title", "text b")
        assert best.score == pytest.approx(1, abs=1e-5)
        assert result.hits[1].score <= best.score


def test_many_queries_are_answered_in_their_order(here: Settings) -> None:
    put(here, 1, ["a", "b", "c"])
    with Retriever(here, load=numbers) as retriever:
        results = retriever.search_many(["c", "a", "b", "a"], k=1)
        assert [r.hits[0].doc_id for r in results] == ["c", "a", "b", "a"]
        assert retriever.search_many([]) == []


def test_a_hybrid_build_is_searched_by_vectors_and_words_whatever_the_setting(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUERIES", 2)
    texts = ["zebra", "stone", *(f"other {n}" for n in range(30))]
    put(here, 1, texts, search="hybrid")
    assert here.index_search == "dense"
    queries = ["zebra", "what is a zebra or a stone", "???"]
    with Retriever(here, load=numbers) as retriever:
        both, words, vectors = retriever.search_many(queries, k=3)
    assert [hit.rank for hit in both.hits] == [1, 2, 3]
    assert (both.hits[0].doc_id, both.hits[0].text) == ("zebra", "text zebra")
    assert both.hits[0].score == pytest.approx(2 / 61)
    found = {hit.doc_id: hit.score for hit in words.hits}
    assert found.keys() >= {"zebra", "stone"}
    assert all(1 / 62 <= found[name] <= 2 / 61 for name in ("zebra", "stone"))
    assert [hit.score for hit in vectors.hits] == pytest.approx([1 / 61, 1 / 62, 1 / 63])


def test_more_queries_than_a_message_takes(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUERIES", 2)
    put(here, 1, ["a", "b", "c"])
    with Retriever(here, load=numbers) as retriever:
        results = retriever.search_many(["a", "b", "c", "b", "a"], k=1)
    assert [r.hits[0].doc_id for r in results] == ["a", "b", "c", "b", "a"]


@pytest.mark.parametrize("k", [0, -1, 16_385])
def test_an_impossible_k_is_refused(here: Settings, k: int) -> None:
    put(here, 1, ["a"])
    with Retriever(here, load=numbers) as retriever, pytest.raises(ValueError, match="k is"):
        retriever.search("a", k=k)


def test_documents_are_opened_by_id(here: Settings) -> None:
    ids = ["a", 'quo"te', "two\nlines", "a\ttab", "ends\n", "back\\slash"]
    put(here, 1, ids)
    with Retriever(here, load=numbers) as retriever:
        for doc_id in ids:
            found = retriever.open(doc_id)
            assert found is not None
            assert found.text == f"text {doc_id}"
        document = retriever.open('quo"te')
        assert document is not None
        assert (document.title, document.text, document.url) == ("title", 'text quo"te', None)
        first = retriever.open("a")
        assert first is not None
        urls = {hit.doc_id: hit.url for hit in retriever.search("a", k=9).hits}
        assert urls == dict.fromkeys(ids) | {"a": first.url} == dict.fromkeys(ids) | URLS
        assert retriever.open("unknown") is None


def test_before_the_first_build_the_error_says_what_to_do(here: Settings) -> None:
    with Retriever(here, load=numbers) as retriever:
        began = time.monotonic()
        with pytest.raises(NoIndexError, match="retrail worker index"):
            retriever.search("a")
        assert time.monotonic() - began < 2
        put(here, 1, ["a"])
        assert retriever.search("a").hits[0].doc_id == "a"


def test_milvus_down_at_the_start() -> None:
    with pytest.raises(MilvusUnavailableError, match="retrail up"):
        Retriever(settings_for("http://127.0.0.1:1"))


def test_a_collection_of_somebody_else_is_not_searched(here: Settings) -> None:
    client = Milvus(here)._client
    client.create_collection(f"{here.retriever}_theirs", dimension=DIMENSION)
    client.create_alias(f"{here.retriever}_theirs", here.retriever)
    with (
        Retriever(here, load=numbers) as retriever,
        pytest.raises(ModelError, match="not built by Retrail"),
    ):
        retriever.search("a")
    client.drop_collection(f"{here.retriever}_theirs")


def test_a_search_that_meets_a_dropped_collection_resolves_again(here: Settings) -> None:
    old = put(here, 1, ["a"])
    with Retriever(here, load=numbers) as retriever:
        retriever.search("a")
        put(here, 2, ["b"])
        Milvus(here).drop(old)
        result = retriever.search("b", k=1)
        assert (result.retriever_version, result.hits[0].doc_id) == (2, "b")


def test_a_released_collection_is_loaded(here: Settings) -> None:
    build = put(here, 1, ["a"])
    with Retriever(here, load=numbers) as retriever:
        Milvus(here)._client.release_collection(build.collection)
        assert retriever.search("a", k=1).hits[0].doc_id == "a"


@pytest.mark.integration
def test_searches_outlive_a_restart_of_milvus(tmp_path: Path) -> None:
    server = MilvusLite(tmp_path / "milvus", tmp_path / "milvus.log")
    server.start()
    try:
        settings = settings_for(f"http://{server.address}")
        put(settings, 1, ["a", "b"])
        done = threading.Event()
        answers: list[str] = []
        with Retriever(settings, load=numbers) as retriever:

            def search() -> None:
                while not done.is_set():
                    try:
                        answers.append(retriever.search("b", k=1).hits[0].doc_id)
                    except Exception as error:
                        answers.append(f"{error}")

            thread = threading.Thread(target=search)
            thread.start()
            eventually(lambda: len(answers) > 5)
            assert server.child is not None
            server.child.kill()
            server.start()
            count = len(answers)
            eventually(lambda: len(answers) > count + 5)
            done.set()
            thread.join()
        assert set(answers) == {"b"}
    finally:
        server.stop()


@pytest.mark.integration
def test_a_milvus_that_stays_away_is_reported(tmp_path: Path) -> None:
    server = MilvusLite(tmp_path / "milvus", tmp_path / "milvus.log")
    server.start()
    settings = settings_for(f"http://{server.address}")
    try:
        put(settings, 1, ["a"])
        retriever = Retriever(settings, load=numbers, seconds=0.5)
        retriever.search("a")
    finally:
        server.stop()
    with pytest.raises(MilvusUnavailableError, match="Check that the server is up"):
        retriever.search("a")
    retriever.close()


def test_a_digest_that_differs_is_refused(here: Settings, tmp_path: Path) -> None:
    put(here, 1, ["a"])
    elsewhere = here.model_copy(update={"registry": tmp_path})
    folder = tmp_path / "somewhere"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with Retriever(elsewhere) as retriever, pytest.raises(ModelError, match="digest"):
        retriever.search("a")


OWNERS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", 'q"': 'q"'}
SHARED = ["s1", "s2"]


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_tenant_finds_its_documents_and_everyones(here: Settings, mode: SearchMode) -> None:
    put(here, 1, [*OWNERS, *SHARED], search=mode, owners=OWNERS)
    tenants = ["a", None, "b", "", 'q"', "a"]
    queries = ["b1", "b1", "a1", "a1", "a1", "s1"]
    with Retriever(here, load=numbers) as retriever:
        results = retriever.search_many(queries, 10, tenants)
        assert retriever.search("b1", 10, "b").hits[0].doc_id == "b1"
        opened = {
            (tenant, doc_id)
            for tenant in ("a", "b", "", None)
            for doc_id in [*OWNERS, *SHARED]
            if retriever.open(doc_id, tenant) is not None
        }
    assert [{hit.doc_id for hit in result.hits} for result in results] == [
        {"a1", "a2", *SHARED},
        {*OWNERS, *SHARED},
        {"b1", "b2", *SHARED},
        {*SHARED},
        {'q"', *SHARED},
        {"a1", "a2", *SHARED},
    ]
    assert results[1].hits[0].doc_id == "b1"
    assert results[5].hits[0].doc_id == "s1"
    assert opened == {
        (tenant, doc_id)
        for tenant in ("a", "b", "", None)
        for doc_id in [*OWNERS, *SHARED]
        if may_see(tenant, OWNERS.get(doc_id, ""))
    }


def test_an_index_without_tenants_refuses_limited_searches(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was built before documents had tenants: neither the field nor the property."""
    schema = collection.schema

    def older(search: SearchMode, dimension: int) -> Any:
        made = schema(search, dimension)
        made.fields.remove(next(field for field in made.fields if field.name == TENANT_FIELD))
        return made

    monkeypatch.setattr(collection, "schema", older)
    put(here, 1, ["a"], tenants=False)
    with Retriever(here, load=numbers) as retriever:
        assert retriever.search("a").hits[0].doc_id == "a"
        assert retriever.open("a") is not None
        for call in (retriever.search, retriever.open):
            with pytest.raises(NoTenantsError, match="`retrail index rebuild`"):
                call("a", tenant="x")
