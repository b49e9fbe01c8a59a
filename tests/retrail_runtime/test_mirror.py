"""The local copy of documents: contents, deletions, restarts, recreated topics."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from consumers.training.text_store import TextStore, read

from deploy import topics as topics_module
from retrail_runtime import kafka
from schemas.documents import Document
from schemas.errors import RestartRequiredError
from schemas.settings import Settings
from schemas.topics import Topics
from tests.waiting import eventually

Publish = Callable[..., None]


@pytest.fixture
def publish(settings: Settings, topics: Topics) -> Publish:
    def _publish(*records: tuple[str, bytes | None]) -> None:
        kafka.send_all(
            kafka.producer(settings),
            topics.documents,
            [(key.encode(), value) for key, value in records],
        )

    return _publish


@pytest.fixture
def open_store(
    settings: Settings, topics: Topics, tmp_path: Path
) -> Iterator[Callable[[], TextStore]]:
    opened: list[TextStore] = []

    def _open() -> TextStore:
        for store in opened:
            store.close()
        opened[:] = [TextStore(settings, tmp_path / "texts")]
        return opened[0]

    yield _open
    for store in opened:
        store.close()


def document(doc_id: str, text: str) -> tuple[str, bytes]:
    return doc_id, Document(doc_id=doc_id, title="A title", text=text).to_json()


def test_the_last_text_of_an_id_counts(
    publish: Publish, open_store: Callable[[], TextStore]
) -> None:
    publish(document("a", "old"), document("b", "other"), document("a", "new"))
    store = open_store()
    store.catch_up(30)
    found = store.get(["a", "b", "a", "absent"])
    assert {doc_id: item.text for doc_id, item in found.items()} == {"a": "new", "b": "other"}
    assert found["a"].embedded_text() == "A title\nnew"
    assert store.all_ids() == ["a", "b"]


def test_an_empty_value_deletes(publish: Publish, open_store: Callable[[], TextStore]) -> None:
    publish(document("a", "x"), document("b", "x"), document("c", "x"))
    store = open_store()
    store.catch_up(30)
    publish(("a", None), ("b", b""))
    store.catch_up(30)
    assert store.all_ids() == ["c"]


def test_malformed_documents_are_passed_over(
    publish: Publish, open_store: Callable[[], TextStore]
) -> None:
    publish(
        document("a", "kept"),
        ("a", b"{"),
        ("b", b'{"doc_id": "b"}'),
        ("c", document("other", "x")[1]),
        document("d", "after"),
    )
    store = open_store()
    store.catch_up(30)
    assert store.all_ids() == ["a", "d"]
    assert store.get(["a"])["a"].text == "kept"


def test_a_restart_reads_only_what_is_new(
    publish: Publish, open_store: Callable[[], TextStore]
) -> None:
    publish(*(document(f"d{n:04}", "x") for n in range(1200)))
    store = open_store()
    store.catch_up(30)
    before = dict(store.next)
    store = open_store()
    assert store.next == before
    assert len(store.get(store.all_ids())) == 1200
    publish(document("new", "x"))
    store.catch_up(30)
    assert sum(store.next.values()) == 1201
    assert "new" in store.all_ids()


def test_a_recreated_topic_is_read_anew(
    settings: Settings, topics: Topics, publish: Publish, open_store: Callable[[], TextStore]
) -> None:
    publish(document("old", "x"))
    store = open_store()
    store.catch_up(30)
    admin = AdminClient(settings.kafka())
    admin.delete_topics([topics.documents])[topics.documents].result()
    eventually(lambda: topics.documents not in admin.list_topics(timeout=5).topics)
    topics_module.ensure(settings)
    publish(*(document(f"new{n}", "x") for n in range(20)))
    store = open_store()
    store.catch_up(30)
    assert len(store.all_ids()) == 20
    assert "old" not in store.all_ids()


def test_a_topic_deleted_under_a_running_store_ends_the_worker(
    settings: Settings, topics: Topics, publish: Publish, open_store: Callable[[], TextStore]
) -> None:
    publish(document("a", "x"))
    store = open_store()
    store.catch_up(30)
    admin = AdminClient(settings.kafka())
    admin.delete_topics([topics.documents])[topics.documents].result()

    def fails() -> bool:
        try:
            store.poll(0.2)
        except RestartRequiredError:
            return True
        return False

    eventually(fails, timeout=60)


def test_a_record_without_key_is_no_document() -> None:
    with pytest.raises(ValueError, match="key"):
        read(kafka.Record("documents", 0, 0, 0, None, b"{}"))
