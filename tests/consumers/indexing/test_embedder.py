"""Rows from documents, with an encoder that counts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consumers.indexing.embedder import Embedder
from consumers.indexing.vectors import VectorStore
from schemas.documents import Document, content_hash


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


def document(doc_id: str, text: str, title: str = "") -> Document:
    return Document(doc_id=doc_id, title=title, text=text)


def test_rows_keep_the_order_of_documents() -> None:
    rows = Embedder(Counting(), 1).rows([document("a", "xx", "t"), document("b", "x")])
    assert [(r.doc_id, r.title, r.text, r.vector[0]) for r in rows] == [
        ("a", "t", "xx", 4),
        ("b", "", "x", 1),
    ]
    assert rows[0].content_hash == content_hash("t\nxx")


def test_equal_texts_are_encoded_once() -> None:
    encoder = Counting()
    embedder = Embedder(encoder, 1)
    embedder.rows([document("a", "x"), document("b", "x"), document("c", "y")])
    rows = embedder.rows([document("d", "y"), document("a", "x"), document("e", "zzz")])
    assert encoder.read == ["x", "y", "zzz"]
    assert [row.vector[0] for row in rows] == [1, 1, 3]
    assert embedder.rows([]) == []


def test_the_texts_used_last_are_remembered() -> None:
    encoder = Counting()
    embedder = Embedder(encoder, 1, remembered=2)
    for text in ("x", "y", "x", "z", "x", "y"):
        embedder.rows([document("a", text)])
    assert encoder.read == ["x", "y", "z", "y"]


def test_what_is_on_disk_is_not_encoded_again(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "v.sqlite", 1024 * 1024)
    first, again, other = Counting(), Counting(), Counting()
    Embedder(first, 1, store=store.of("model", 2)).rows([document("a", "x"), document("b", "yy")])
    rows = Embedder(again, 2, store=store.of("model", 2)).rows(
        [document("c", "yy"), document("d", "zzz"), document("e", "yy")]
    )
    Embedder(other, 3, store=store.of("another model", 2)).rows([document("a", "x")])
    assert (first.read, again.read, other.read) == (["x", "yy"], ["zzz"], ["x"])
    assert [row.vector[0] for row in rows] == [2, 3, 2]


def test_a_caller_can_give_up() -> None:
    def stop(_done: int, _total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Embedder(Counting(), 1).rows([document("a", "x")], stop)
