"""Rows from documents, and the vectors on disk: reuse, the limit, and broken files."""

import multiprocessing
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consumers.indexing.embedder import Embedder
from consumers.vectors import VectorStore
from schemas.documents import Document, content_hash

DIMENSION = 64
MAX_BYTES = 1024 * 1024


class Counting:
    """A vector is the length of its text."""

    dimension = 2

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        self.read += texts
        if progress is not None:
            progress(len(texts), len(texts))
        return np.array([[len(text), 0] for text in texts], dtype=np.float32)


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return VectorStore(tmp_path / "v.sqlite", MAX_BYTES)


def document(doc_id: str, text: str, title: str = "") -> Document:
    return Document(doc_id=doc_id, title=title, text=text)


def test_rows_keep_the_order_of_documents(store: VectorStore) -> None:
    embedder = Embedder(Counting(), 1, "model", store)
    rows = embedder.rows([document("a", "xx", "t"), document("b", "x")])
    assert [(r.doc_id, r.title, r.text, r.vector[0]) for r in rows] == [
        ("a", "t", "xx", 4),
        ("b", "", "x", 1),
    ]
    assert rows[0].content_hash == content_hash("t\nxx")


def test_equal_texts_are_encoded_once(store: VectorStore) -> None:
    encoder = Counting()
    embedder = Embedder(encoder, 1, "model", store)
    embedder.rows([document("a", "x"), document("b", "x"), document("c", "y")])
    rows = embedder.rows([document("d", "y"), document("a", "x"), document("e", "zzz")])
    assert encoder.read == ["x", "y", "zzz"]
    assert [row.vector[0] for row in rows] == [1, 1, 3]
    assert embedder.rows([]) == []


def test_texts_are_not_encoded_again_by_the_same_model(store: VectorStore) -> None:
    first, again, other = Counting(), Counting(), Counting()
    Embedder(first, 1, "model", store).rows([document("a", "x"), document("b", "yy")])
    rows = Embedder(again, 2, "model", store).rows(
        [document("c", "yy"), document("d", "zzz"), document("e", "yy")]
    )
    Embedder(other, 3, "another model", store).rows([document("a", "x")])
    assert (first.read, again.read, other.read) == (["x", "yy"], ["zzz"], ["x"])
    assert [row.vector[0] for row in rows] == [2, 3, 2]


def test_a_caller_can_stop_it(store: VectorStore) -> None:
    def stop(_done: int, _total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Embedder(Counting(), 1, "model", store).rows([document("a", "x")], stop)


def test_a_broken_store_only_costs_encoding(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    encoder = Counting()
    embedder = Embedder(encoder, 1, "model", VectorStore(tmp_path / "file" / "v.sqlite"))
    for _ in range(2):
        [row] = embedder.rows([document("a", "xx")])
        assert row.vector[0] == 2
    assert encoder.read == ["xx", "xx"]


def vectors(*names: str) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(len(names))
    return {name: generator.normal(size=DIMENSION).astype(np.float32) for name in names}


def test_vectors_are_found_again_bit_for_bit_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "v.sqlite"
    kept = vectors(*map(str, range(1200)))
    store = VectorStore(path, MAX_BYTES)
    store.put("model", kept)
    store.close()
    found = VectorStore(path, MAX_BYTES).get("model", DIMENSION, [*kept, "other"])
    assert found.keys() == kept.keys()
    for name, vector in found.items():
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, kept[name])


def test_models_do_not_share_vectors(store: VectorStore) -> None:
    store.put("one", vectors("a"))
    assert store.get("two", DIMENSION, ["a"]) == {}
    assert store.get("one", DIMENSION + 1, ["a"]) == {}


def test_the_oldest_vectors_are_evicted_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    store = VectorStore(path, MAX_BYTES)
    names = [str(n) for n in range(20_000)]
    for start in range(0, len(names), 500):
        store.put("model", vectors(*names[start : start + 500]))
    found = store.get("model", DIMENSION, names)
    assert names[-1] in found
    assert names[0] not in found
    assert len(found) > 1000
    store.close()
    assert path.stat().st_size < 1.5 * MAX_BYTES


def test_a_file_that_is_no_database_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    path.write_bytes(b"no database" * 1000)
    store = VectorStore(path, MAX_BYTES)
    store.put("model", vectors("a"))
    assert store.get("model", DIMENSION, ["a"]).keys() == {"a"}


def test_a_store_that_fails_is_no_longer_used(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    store = VectorStore(path, MAX_BYTES)
    store.put("model", vectors("a"))
    other = sqlite3.connect(path)
    other.execute("DROP TABLE vectors")
    other.commit()
    assert store.get("model", DIMENSION, ["a"]) == {}
    store.put("model", vectors("a"))
    assert store.get("model", DIMENSION, ["a"]) == {}


def _put(path: Path, first: int) -> None:
    store = VectorStore(path, MAX_BYTES)
    for number in range(first, first + 40):
        store.put("model", vectors(str(number)))


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_put, args=(path, 40 * n)) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    found = VectorStore(path, MAX_BYTES).get("model", DIMENSION, [str(n) for n in range(120)])
    assert len(found) == 120
