"""The documents that exist, as a fold over the topic."""

from consumers.indexing.coordinator import DocumentHashes, apply
from retrail_runtime import kafka
from retrail_runtime.kafka import Record
from schemas.documents import Document, content_hash
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness


def record(offset: int, key: str, value: bytes | None) -> Record:
    return Record("documents", 0, offset, 0, key.encode(), value)


def test_the_latest_state_counts_and_an_invalid_record_removes_the_document() -> None:
    first, second = (Document(doc_id="a", text=text) for text in ("one", "two"))
    other = Document(doc_id="b", text="other")
    records = [
        record(0, "a", first.to_json()),
        record(1, "b", other.to_json()),
        record(2, "a", second.to_json()),
        record(3, "b", b"invalid"),
        record(4, "c", first.to_json()),
    ]
    known: dict[str, Document] = {}
    assert apply(known, records, lambda document: document) == {"a", "b", "c"}
    assert known == {"a": second}
    assert apply(known, [record(5, "a", None)], lambda document: document) == {"a"}
    assert known == {}


def test_a_record_whose_key_is_no_id_changes_nothing() -> None:
    known = {"a": "kept"}
    keyless = Record("documents", 0, 0, 0, None, b"{}")
    broken = Record("documents", 0, 1, 0, b"\xff", b"{}")
    assert apply(known, [keyless, broken], lambda document: document.text) == set()
    assert known == {"a": "kept"}


def test_catching_up_returns_what_changed(settings: Settings, topics: Topics) -> None:
    known = DocumentHashes(settings)
    assert known.catch_up() == set()
    harness.publish(settings, {"a": "one", "b": "two"})
    assert known.catch_up() == {"a", "b"}
    assert known.hashes == {"a": content_hash("one"), "b": content_hash("two")}
    harness.publish(settings, {"b": None, "c": "three"})
    kafka.publish_and_wait(kafka.producer(settings), topics.documents, key=b"a", value=b"invalid")
    assert known.catch_up() == {"a", "b", "c"}
    assert known.hashes == {"c": content_hash("three")}
    assert known.documents({"a", "c"}) == {"c": Document(doc_id="c", text="three")}
