"""Records of documents, good and bad."""

import pytest

from consumers.indexing.documents import Change, Poison, read_change
from retrail_runtime.kafka import Record
from schemas.documents import Document, content_hash


def record(key: bytes | None, value: bytes | None) -> Record:
    return Record("documents", 0, 7, 0, key, value)


def test_a_document_is_named_by_what_the_encoder_reads() -> None:
    document = Document(doc_id="a", title="T", text="x")
    change = read_change(record(b"a", document.to_json()))
    assert change == Change("a", document, content_hash("T\nx"))


@pytest.mark.parametrize("value", [None, b""])
def test_an_empty_value_deletes(value: bytes | None) -> None:
    assert read_change(record(b"a", value)) == Change("a", None)


@pytest.mark.parametrize(
    ("key", "value", "doc_id", "complaint"),
    [
        (b"a", b"{", "a", "JSON"),
        (b"a", b'{"doc_id": "a"}', "a", "text: Field required"),
        (b"a", b'{"doc_id": "a", "text": ""}', "a", "text"),
        (b"a", b'{"doc_id": "b", "text": "x"}', "a", "the key is 'a'"),
        (b"a", b'{"doc_id": "a", "text": "x", "more": 1}', "a", "more"),
        (b"\xff", b'{"doc_id": "b", "text": "x"}', None, "not UTF-8"),
        (None, b'{"doc_id": "b", "text": "x"}', None, "the key is ''"),
        (b"a", b'{"doc_id": "%s", "text": "x"}' % (b"d" * 513), "a", "doc_id"),
    ],
)
def test_poison_says_what_is_wrong(
    key: bytes | None, value: bytes, doc_id: str | None, complaint: str
) -> None:
    found = read_change(record(key, value))
    assert isinstance(found, Poison)
    assert found.doc_id == doc_id
    assert complaint in found.message
