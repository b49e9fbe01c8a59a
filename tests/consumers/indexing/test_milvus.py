"""The Milvus shell against a real Milvus Lite server, and in part the standalone one."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from consumers.indexing import collection
from consumers.indexing.collection import MAX_TEXT_BYTES, CollectionLostError, Row
from consumers.indexing.milvus import Milvus
from consumers.tasks import StoppedError
from retrail_runtime import milvus as basics
from retrail_runtime.milvus import (
    BM25_FIELD,
    SUCCESSOR_PROPERTY,
    VECTOR_FIELD,
    Build,
    collection_name,
)
from schemas.errors import MilvusUnavailableError, RestartRequiredError
from schemas.settings import Settings
from tests import index_harness as harness
from tests.started_servers import on_both, standalone_in_faults

DIMENSION = 8
AWKWARD = [
    *("plain", "q'uote", 'd"ouble', "back\\slash", "new\nline", "tab\t", "é漢😀", "a,b in ["),
    *("nul\0", "bell\a", "delete\x7f", "line\u2028", "{brace}", "100%", "\ufeffbom"),
]


@pytest.fixture
def only_milvus(milvus_uri: str) -> Settings:
    return Settings(milvus_uri=milvus_uri, retriever=f"r{secrets.token_hex(4)}")


@pytest.fixture
def shell(only_milvus: Settings) -> Milvus:
    return Milvus(only_milvus, vector_index="FLAT")


@pytest.fixture
def build(shell: Milvus, only_milvus: Settings) -> Iterator[Build]:
    made = Build(f"{only_milvus.retriever}_v1", 1, secrets.token_hex(4), "folder", "0" * 64)
    shell.create(made, DIMENSION)
    yield made
    shell.drop(made)


def row(doc_id: str, text: str = "text", found: str = "hash") -> Row:
    generator = np.random.default_rng(sum(doc_id.encode()))
    vector = generator.normal(size=DIMENSION).astype(np.float32)
    return Row(doc_id, "title", text, found, vector / np.linalg.norm(vector))


@on_both
def test_a_build_is_read_back_from_its_collection(shell: Milvus, build: Build) -> None:
    assert shell.builds() == (build,)
    assert shell.exists(build)


@on_both
def test_creating_twice_keeps_the_first(shell: Milvus, build: Build) -> None:
    shell.create(Build(build.collection, 1, "other", "folder", "0" * 64), DIMENSION)
    assert shell.builds() == (build,)


@on_both
def test_rows_with_awkward_ids_are_written_read_and_deleted(shell: Milvus, build: Build) -> None:
    assert shell.upsert(build, [row(doc_id) for doc_id in AWKWARD]) == len(AWKWARD)
    assert harness.rows(shell, build) == dict.fromkeys(AWKWARD, "hash")
    shell.delete(build, AWKWARD[1:])
    assert harness.rows(shell, build) == {"plain": "hash"}
    assert shell.count(build) == 1


@standalone_in_faults
def test_the_last_row_of_an_id_counts(shell: Milvus, build: Build) -> None:
    assert shell.upsert(build, [row("a", found="1"), row("b"), row("a", found="2")]) == 2
    assert harness.rows(shell, build) == {"a": "2", "b": "hash"}


@standalone_in_faults
def test_hashes_are_read_page_by_page(
    shell: Milvus, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.indexing.milvus.PAGE", 2)
    shell.upsert(build, [row(doc_id) for doc_id in AWKWARD])
    assert harness.rows(shell, build).keys() == set(AWKWARD)


@standalone_in_faults
def test_a_text_is_cut_to_what_a_collection_holds(shell: Milvus, build: Build) -> None:
    shell.upsert(build, [row("long", text="é" * MAX_TEXT_BYTES)])
    shell.make_searchable(build)
    stored = basics.connect(shell._settings).query(
        build.collection,
        filter=basics.ids_filter(["long"]),
        output_fields=["text"],
        consistency_level="Strong",
    )
    assert stored[0]["text"] == "é" * (MAX_TEXT_BYTES // 2)


@standalone_in_faults
def test_a_searchable_build_stays_so_when_it_was_released(shell: Milvus, build: Build) -> None:
    shell.make_searchable(build)
    assert shell.probe(build)
    shell.upsert(build, [row("a"), row("b")])
    assert shell.probe(build)
    shell._client.release_collection(build.collection)
    assert shell.count(build) == 2
    shell.make_searchable(build)


def described(left: int) -> dict[str, int]:
    return {"total_rows": 10, "indexed_rows": 10 - left, "pending_index_rows": 10}


@standalone_in_faults
def test_rows_without_an_index_are_counted_until_there_is_none(
    shell: Milvus, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [5, 3, 0]
    monkeypatch.setattr(shell._client, "describe_index", lambda *_, **__: described(left.pop(0)))
    noted: list[int] = []
    assert shell.make_searchable(build, noted.append)
    assert noted == [5, 3]


def test_a_wait_for_the_index_ends_when_its_listener_raises(
    shell: Milvus, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell._client, "describe_index", lambda *_, **__: described(5))

    def stop(_: int) -> None:
        raise StoppedError("another build should serve")

    with pytest.raises(StoppedError):
        shell.make_searchable(build, stop)


@pytest.fixture
def hybrid(shell: Milvus, only_milvus: Settings) -> Iterator[Build]:
    name = collection_name(only_milvus.retriever, 1)
    made = Build(name, 1, secrets.token_hex(4), "folder", "0" * 64, search="hybrid")
    shell.create(made, DIMENSION)
    yield made
    shell.drop(made)


def by_words(shell: Milvus, build: Build, words: str) -> list[str]:
    hits = shell._client.search(build.collection, data=[words], anns_field=BM25_FIELD, limit=10)
    return sorted(hit.id for hit in hits[0])


def test_a_hybrid_build_is_searched_by_words_of_title_and_text(
    shell: Milvus, hybrid: Build
) -> None:
    assert shell.builds() == (hybrid,)
    shell.make_searchable(hybrid)
    assert shell.probe(hybrid)
    shell.upsert(hybrid, [row("a", text="a red stone"), row("b", text="b" * MAX_TEXT_BYTES)])
    assert shell.probe(hybrid)
    assert by_words(shell, hybrid, "stone") == ["a"]
    assert by_words(shell, hybrid, "title") == ["a", "b"]
    shell.upsert(hybrid, [row("a", text="a green river")])
    assert by_words(shell, hybrid, "stone") == []
    assert by_words(shell, hybrid, "river") == ["a"]
    shell.delete(hybrid, ["a"])
    assert by_words(shell, hybrid, "river") == []


def test_a_kill_between_the_indexes_of_a_hybrid_build_leaves_the_rest_to_the_next(
    shell: Milvus, hybrid: Build
) -> None:
    shell._client.release_collection(hybrid.collection)
    shell._client.drop_index(hybrid.collection, VECTOR_FIELD)
    params = collection.index_params(VECTOR_FIELD, "FLAT")
    shell._client.create_index(hybrid.collection, params)
    assert shell._client.list_indexes(hybrid.collection) == [VECTOR_FIELD]
    shell.upsert(hybrid, [row("a", text="stone")])
    shell.make_searchable(hybrid)
    assert shell._client.list_indexes(hybrid.collection) == [VECTOR_FIELD, BM25_FIELD]
    assert by_words(shell, hybrid, "stone") == ["a"]


def test_both_indexes_of_a_hybrid_build_are_built_again_when_it_does_not_load(
    shell: Milvus, hybrid: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.upsert(hybrid, [row("a", text="stone")])
    shell.make_searchable(hybrid)
    shell._client.release_collection(hybrid.collection)
    load, create = shell._client.load_collection, shell._client.create_index
    made: list[object] = []

    def load_collection(*arguments: Any, **options: Any) -> None:
        if not made:
            raise MilvusException(1, "an index cannot be read")
        load(*arguments, **options)

    def create_index(*arguments: Any, **options: Any) -> None:
        create(*arguments, **options)
        made.append(arguments)

    monkeypatch.setattr(shell._client, "load_collection", load_collection)
    monkeypatch.setattr(shell._client, "create_index", create_index)
    shell.load(hybrid)
    assert len(made) == 2
    assert shell.probe(hybrid)
    assert by_words(shell, hybrid, "stone") == ["a"]


@on_both
def test_the_alias_follows_swaps(shell: Milvus, build: Build) -> None:
    assert shell.aliased() is None
    other = Build(f"{shell._settings.retriever}_v2", 2, secrets.token_hex(4), "folder", "1" * 64)
    shell.create(other, DIMENSION)
    for target in (build, other, build, build):
        shell.swap(target)
        assert shell.aliased() == target.collection
    assert [b.served for b in shell.builds()] == [True, True]
    shell.drop(other)
    assert shell.aliased() == build.collection


@on_both
def test_a_request_for_a_successor_is_kept_beside_the_other_properties(
    shell: Milvus, build: Build
) -> None:
    shell.swap(build)
    shell.set_property(build, SUCCESSOR_PROPERTY, "aaaa0001")
    shell.set_property(build, SUCCESSOR_PROPERTY, "aaaa0002")
    assert shell.builds() == (replace(build, served=True, successor="aaaa0002"),)
    name = collection_name(shell._settings.retriever, 1, "aaaa0002")
    again = Build(name, 1, "aaaa0002", "folder", "0" * 64, search="hybrid")
    if not shell._client.get_server_version().startswith(("2.3", "v2.3")):
        shell.create(again, DIMENSION)
        assert set(shell.builds()) > {again}
        shell.drop(again)


@on_both
def test_the_alias_of_a_dropped_collection_is_set_again(shell: Milvus, build: Build) -> None:
    shell.swap(build)
    shell.drop(build)
    shell.create(build, DIMENSION)
    shell.swap(build)
    assert shell.aliased() == build.collection


@on_both
def test_a_missing_collection_is_distinguished_from_a_failure(shell: Milvus, build: Build) -> None:
    shell._client.drop_collection(build.collection)
    for call in (
        lambda: shell.upsert(build, [row("a")]),
        lambda: shell.delete(build, ["a"]),
        lambda: harness.rows(shell, build),
        lambda: shell.load(build),
        lambda: shell.swap(build),
    ):
        with pytest.raises(CollectionLostError):
            call()
    assert not shell.exists(build)


@on_both
def test_a_build_made_again_is_not_dropped_in_place_of_the_old(shell: Milvus, build: Build) -> None:
    old = Build(build.collection, 1, "old", "folder", "0" * 64)
    shell.drop(old)
    assert shell.exists(build)


@on_both
def test_what_was_just_written_is_read(shell: Milvus, build: Build) -> None:
    shell.make_searchable(build)
    for number in range(3):
        shell.upsert(build, [row("a", found=str(number))])
        assert harness.rows(shell, build) == {"a": str(number)}
        shell.delete(build, ["a"])
        assert harness.rows(shell, build) == {}
        assert shell.count(build) == 0


def test_without_milvus_the_start_fails_with_a_remedy() -> None:
    with pytest.raises(
        MilvusUnavailableError, match=r"127\.0\.0\.1:1 .*retrail up.*RETRAIL_MILVUS_URI"
    ):
        Milvus(Settings(milvus_uri="http://127.0.0.1:1"))


def test_a_lost_milvus_is_waited_for_a_bounded_time(only_milvus: Settings) -> None:
    nowhere = only_milvus.model_copy(update={"milvus_uri": "http://127.0.0.1:1"})
    client = MilvusClient(uri=only_milvus.milvus_uri)
    client.close()
    message = r"call `list_collections` to http://127\.0\.0\.1:1 failed for 0 s: .*Check that"
    with pytest.raises(RestartRequiredError, match=message):
        Milvus(nowhere, client=client, retry_seconds=0.3).builds()
    assert REGISTRY.get_sample_value("retrail_dependency_up", {"dependency": "milvus"}) == 0
    with closing(Milvus(only_milvus)) as shell:
        shell.builds()
    assert REGISTRY.get_sample_value("retrail_dependency_up", {"dependency": "milvus"}) == 1
