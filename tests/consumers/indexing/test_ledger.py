"""The documents that there are, folded from the topic."""

from consumers.indexing.ledger import Ledger, latest
from retrail_runtime import kafka
from retrail_runtime.kafka import Record
from schemas.documents import Document, content_hash
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness


def record(offset: int, key: str, value: bytes | None) -> Record:
    return Record("documents", 0, offset, 0, key.encode(), value)


def test_the_latest_state_counts_and_poison_is_no_document() -> None:
    first, second = (Document(doc_id="a", text=text) for text in ("one", "two"))
    other = Document(doc_id="b", text="other")
    records = [
        record(0, "a", first.to_json()),
        record(1, "b", other.to_json()),
        record(2, "a", second.to_json()),
        record(3, "b", b"poison"),
        record(4, "c", first.to_json()),
    ]
    assert latest(records, {"a", "b", "c"}) == {"a": second}
    assert latest(records, {"b"}) == {}
    assert latest([*records, record(5, "a", None)], {"a"}) == {}


def test_catching_up_tells_what_changed(settings: Settings, topics: Topics) -> None:
    ledger = Ledger(settings)
    assert ledger.catch_up() == set()
    harness.publish(settings, {"a": "one", "b": "two"})
    assert ledger.catch_up() == {"a", "b"}
    assert ledger.hashes == {"a": content_hash("one"), "b": content_hash("two")}
    harness.publish(settings, {"b": None, "c": "three"})
    kafka.publish_and_wait(kafka.producer(settings), topics.documents, key=b"a", value=b"poison")
    assert ledger.catch_up() == {"a", "b", "c"}
    assert ledger.hashes == {"c": content_hash("three")}
    assert ledger.documents({"a", "c"}) == {"c": Document(doc_id="c", text="three")}
