"""The documents as a local copy, and a collection compared with them page by page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers.indexing import comparison as module
from consumers.indexing.collection import Row
from consumers.indexing.comparison import Comparison, DocumentHashes
from consumers.tasks import StoppedError
from retrail_runtime import kafka
from retrail_runtime.milvus import Build
from schemas.documents import Document, content_hash
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness

BUILD = Build("c_v1", 1, "id", "", "")


class Rows:
    """A collection in memory; counts what is read."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self.rows = dict(rows)
        self.read: list[int] = []

    def page(self, _: Build, after: str) -> dict[str, str]:
        names = sorted(name for name in self.rows if name > after)[: module.PAGE]
        self.read.append(len(names))
        return {name: self.rows[name] for name in names}

    def hashes_of(self, _: Build, names: Any) -> dict[str, str]:
        self.read.append(len(names))
        return {name: self.rows[name] for name in names if name in self.rows}

    def upsert(self, _: Build, rows: Any) -> None:
        self.rows |= {row.doc_id: row.content_hash for row in rows}

    def delete(self, _: Build, names: Any) -> None:
        for name in names:
            self.rows.pop(name, None)


class Hasher:
    """An embedder without vectors."""

    def rows(self, documents: Any, *_: Any) -> list[Row]:
        vector = np.zeros(2, np.float32)
        texts = [document.embedded_text() for document in documents]
        return [
            Row(document.doc_id, "", text, content_hash(text), vector)
            for document, text in zip(documents, texts, strict=True)
        ]


@pytest.fixture
def known(settings: Settings, topics: Topics, tmp_path: Path) -> Iterator[DocumentHashes]:
    found = DocumentHashes(settings, topics.documents, tmp_path)
    yield found
    found.close()


def compared(rows: Rows, known: DocumentHashes) -> Comparison:
    collection: Any = rows
    embedder: Any = lambda _: Hasher()  # noqa: E731
    return Comparison(
        BUILD,
        collection,
        known,
        embedder,
        await_group=lambda: None,
        require=lambda: None,
    )


def test_the_latest_state_counts_and_an_invalid_record_removes_the_document(
    settings: Settings, topics: Topics, known: DocumentHashes
) -> None:
    with known.noting() as changed:
        known.catch_up()
        assert changed == set()
        harness.publish(settings, {"a": "one", "b": "two"})
        known.catch_up()
        assert changed == {"a", "b"}
    assert known.page("") == {"a": content_hash("one"), "b": content_hash("two")}
    assert known.page("a") == {"b": content_hash("two")}
    harness.publish(settings, {"b": None, "c": "three"})
    producer = kafka.producer(settings)
    kafka.publish_and_wait(producer, topics.documents, key=b"a", value=b"invalid")
    kafka.publish_and_wait(producer, topics.documents, key=b"\xff", value=b"{}")
    with known.noting() as changed:
        known.catch_up()
    assert changed == {"a", "b", "c"}
    assert known.page("") == {"c": content_hash("three")}
    assert known.documents({"a", "c"}) == {"c": Document(doc_id="c", text="three")}
    everywhere = [known.in_partition(partition) for partition in known.next]
    assert {k: v for pages in everywhere for page in pages for k, v in page.items()} == {
        "a": None,
        "b": None,
        "c": content_hash("three"),
    }


def test_every_difference_is_found_and_repaired_in_pages(
    settings: Settings, known: DocumentHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    texts: dict[str, str | None] = {**harness.documents(60)}
    harness.publish(settings, texts)
    wanted = harness.expected_hashes(texts)
    rows = Rows(wanted)
    found = compared(rows, known)
    assert found.whole() == 0
    assert (found.rows, max(rows.read)) == (60, 7)
    for name in ("d1", "d2", "d3", "d4", "d59"):
        del rows.rows[name]
    rows.rows |= {"a": "0", "d10": "0", "zz": "0", **{f"d5x{n}": "0" for n in range(20)}}
    assert found.whole() == 5 + 3 + 20
    assert rows.rows == wanted
    assert found.whole() == 0
    rows.rows.clear()
    assert found.whole() == 60
    assert rows.rows == wanted


def test_pages_in_turn_reach_every_row(
    settings: Settings, known: DocumentHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    texts: dict[str, str | None] = {**harness.documents(20)}
    harness.publish(settings, texts)
    wanted = harness.expected_hashes(texts)
    rows = Rows({**wanted, "d7": "0"})
    found = compared(rows, known)
    assert [found.next_page() for _ in range(3)] == [0, 0, 1]
    rows.rows["a"] = "0"
    assert [found.next_page() for _ in range(2)] == [1, 0]
    assert rows.rows == wanted
    assert max(rows.read) == 7


def test_the_number_of_rows_is_that_of_the_last_round(
    settings: Settings, known: DocumentHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time between two pages follows from it."""
    monkeypatch.setattr(module, "PAGE", 7)
    harness.publish(settings, {**harness.documents(20)})
    found = compared(Rows(harness.expected_hashes({**harness.documents(20)})), known)
    found.whole()
    for _ in range(7):
        found.next_page()
        assert found.rows == 20
    harness.publish(settings, {**harness.documents(30)})
    # Two rounds of five pages, after the rest of one: the first one repairs.
    for _ in range(2 + 5 + 5):
        found.next_page()
    assert found.rows == 30


def test_a_worker_that_stops_does_not_compare_the_rest_of_a_partition(
    settings: Settings, known: DocumentHashes
) -> None:
    harness.publish_into(settings, 0, {"a": "one"})
    rows = Rows({})

    def require() -> None:
        raise StoppedError("it stops")

    collection: Any = rows
    embedder: Any = lambda _: Hasher()  # noqa: E731
    found = Comparison(
        BUILD, collection, known, embedder, await_group=lambda: None, require=require
    )
    with pytest.raises(StoppedError):
        found.partitions({0})
    assert rows.read == []


def test_only_the_partitions_that_moved_are_compared(
    settings: Settings, known: DocumentHashes
) -> None:
    """Deleted documents are among them: a former owner may have written one again."""
    harness.publish_into(settings, 0, {"a": "one", "gone": "two"})
    harness.publish_into(settings, 1, {"b": "three"})
    harness.publish_into(settings, 0, {"gone": None})
    rows = Rows({"a": "0", "b": "0", "gone": "0"})
    found = compared(rows, known)
    assert found.partitions({0}) == 2
    assert rows.rows == {"a": content_hash("one"), "b": "0"}
    assert rows.read == [2]


def test_documents_that_change_meanwhile_are_left_to_the_group(
    settings: Settings, known: DocumentHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.publish(settings, {"a": "one", "b": "two"})
    rows = Rows({"a": "0", "b": "0"})
    found = compared(rows, known)
    page = rows.page

    def page_and_change(build: Build, after: str) -> dict[str, str]:
        given = page(build, after)
        harness.publish(settings, {"a": "another"})
        return given

    monkeypatch.setattr(rows, "page", page_and_change)
    assert found.next_page() == 1
    assert rows.rows == {"a": "0", "b": content_hash("two")}
