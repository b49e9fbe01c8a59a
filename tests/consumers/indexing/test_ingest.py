"""Following ``documents`` while its topic or its group changes, on real servers."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from hypothesis import given
from hypothesis import strategies as st

from consumers.indexing.collection import Row
from consumers.indexing.ingest import LARGEST_CHUNK, DeadLetters, Ingest, next_chunk
from consumers.indexing.milvus import Milvus
from deploy import topics as topics_module
from retrail_runtime import kafka
from retrail_runtime.health import State
from retrail_runtime.milvus import Build
from schemas.documents import Document, content_hash
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness
from tests.waiting import eventually

SLOW_SECONDS = 0.06
"""That the slow encoder takes for a document."""


def delete_documents(settings: Settings) -> None:
    topic = Topics.of(settings).documents
    admin = AdminClient(settings.kafka())
    admin.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in admin.list_topics(timeout=5).topics)


def test_documents_that_are_created_again_replace_the_rows(small: Settings) -> None:
    """The index follows the new topic from its start, without a restart."""
    harness.publish(small, harness.documents(60))
    texts = harness.documents(80, start=40)
    with harness.working(small):
        harness.serves(small, 1)
        delete_documents(small)
        topics_module.ensure(small)
        harness.publish(small, texts)
        expected = harness.expected_hashes(texts)
        eventually(lambda: harness.hashes(small, 1) == expected, 60, "the new documents")
        harness.publish(small, {"d40": None, "new": "a new text"})
        eventually(lambda: "new" in harness.hashes(small, 1), what="a live change")
        assert "d40" not in harness.hashes(small, 1)


def test_documents_that_were_created_again_while_no_worker_ran(small: Settings) -> None:
    harness.publish(small, harness.documents(60))
    with harness.working(small):
        harness.serves(small, 1)
    delete_documents(small)
    topics_module.ensure(small)
    texts = harness.documents(80, start=40)
    harness.publish(small, texts)
    with harness.working(small):
        expected = harness.expected_hashes(texts)
        eventually(lambda: harness.hashes(small, 1) == expected, 60, "the new documents")


def test_a_worker_waits_while_documents_are_missing(small: Settings) -> None:
    texts = harness.documents(20)
    harness.publish(small, texts)
    with harness.working(small) as worker:
        assert worker.health() == State.STARTING
        harness.serves(small, 1)
        eventually(lambda: worker.health() == State.WORKING, what="a worker that is ready")
        delete_documents(small)
        eventually(lambda: worker.health() == State.TOPIC_MISSING, 30, "a missing topic")
        assert harness.hashes(small, 1) == harness.expected_hashes(texts)
        topics_module.ensure(small)
        harness.publish(small, {"new": "a new text"})
        eventually(lambda: harness.hashes(small, 1).keys() == {"new"}, 60, "the new documents")
        assert worker.health() == State.WORKING


def test_new_partitions_are_followed_within_seconds(small: Settings, topics: Topics) -> None:
    harness.publish(small, harness.documents(20))
    with harness.working(small):
        harness.serves(small, 1)
        admin = AdminClient(small.kafka())
        grown = admin.create_partitions([NewPartitions(topics.documents, 5)])
        grown[topics.documents].result()
        eventually(
            lambda: (
                len(admin.list_topics(topics.documents).topics[topics.documents].partitions) == 5
            )
        )
        harness.publish_into(small, 4, {"new": "a text in a new partition"})
        eventually(lambda: "new" in harness.hashes(small, 1), 30, "its row")
        harness.release(small, 2, 2, small.data_dir)
        harness.make_live(small, 2)
        harness.serves(small, 2, 30)
        assert "new" in harness.hashes(small, 2)


def test_invalid_documents_are_dead_lettered_once_although_kafka_forgets_groups(
    small: Settings, topics: Topics
) -> None:
    """Kafka removes the offsets of a group without members after 7 days."""
    harness.publish(small, {"a": "a text"})
    kafka.publish_and_wait(kafka.producer(small), topics.documents, key=b"bad", value=b"{")
    with harness.working(small):
        harness.serves(small, 1)
    admin = AdminClient(small.kafka())
    groups = [
        found.group_id
        for found in admin.list_consumer_groups().result().valid
        if found.group_id.startswith(small.topic_prefix)
    ]
    for deleted in admin.delete_consumer_groups(groups).values():
        deleted.result()
    with harness.working(small):
        harness.release(small, 2, 2, small.data_dir)
        harness.make_live(small, 2)
        harness.serves(small, 2)
    assert len(list(kafka.read_to_end(small, topics.documents_dlq))) == 1


def test_an_equal_offset_of_another_record_is_dead_lettered_too(
    settings: Settings, topics: Topics
) -> None:
    """Offsets start again when ``documents`` is created again."""
    letters = DeadLetters(settings)
    record = kafka.Record(topics.documents, 0, 7, 0, b"key", b"{")
    for value in (b"{", b"[", b"{"):
        letters.send([(kafka.Record(topics.documents, 0, 7, 0, b"key", value), "bad")])
    DeadLetters(settings).send([(record, "bad")])
    sent = kafka.read_to_end(settings, topics.documents_dlq)
    assert [letter.value for letter in sent] == [b"{", b"["]


class SlowEmbedder:
    """Takes :data:`SLOW_SECONDS` a document, and stores no vector."""

    def __init__(self) -> None:
        self.encoded = 0

    def rows(
        self, documents: Sequence[Document], progress: Callable[[int, int], None]
    ) -> list[Row]:
        vector = np.full(8, 8**-0.5, dtype=np.float32)
        made = []
        for document in documents:
            time.sleep(SLOW_SECONDS)
            progress(0, 0)
            found = content_hash(document.embedded_text())
            made.append(Row(document.doc_id, "", document.text, found, vector))
        self.encoded += len(made)
        return made


@contextmanager
def following(settings: Settings, build: Build, embedder: SlowEmbedder) -> Iterator[None]:
    """Ingest in a thread, with a ``max.poll.interval.ms`` of 6 s."""
    stopping, failures = threading.Event(), []
    with closing(Milvus(settings)) as milvus:
        ingest = Ingest(
            settings,
            build,
            f"{settings.topic_prefix}slow",
            lambda: embedder,
            milvus,
            DeadLetters(settings),
            chunk_seconds=0.2,
        )

        def run() -> None:
            try:
                ingest.run(stopping)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join(30)
    assert not failures


def test_an_encoder_slower_than_the_poll_interval_keeps_its_partitions(
    small: Settings,
) -> None:
    small = small.model_copy(update={"kafka_session_timeout": 6.0})
    texts = harness.documents(200)
    harness.publish_into(small, 0, texts)
    build = Build(f"{small.retriever}_v1", 1, secrets.token_hex(4), "folder", "0" * 64)
    embedder = SlowEmbedder()
    with closing(Milvus(small, vector_index="FLAT")) as milvus:
        milvus.create(build, 8)
        with following(small, build, embedder):
            eventually(lambda: len(harness.rows(milvus, build)) == len(texts), 60, "all rows")
    assert embedder.encoded == len(texts)


@given(st.integers(1, LARGEST_CHUNK), st.floats(0.001, 1000.0))
def test_chunks_shrink_until_they_are_short_enough(size: int, seconds_each: float) -> None:
    for _ in range(20):
        size = next_chunk(size, size * seconds_each, 10.0)
        assert 1 <= size <= LARGEST_CHUNK
    assert size == 1 or size * seconds_each <= 10.0


def test_chunks_of_a_fast_encoder_grow() -> None:
    sizes = [16]
    for _ in range(5):
        sizes.append(next_chunk(sizes[-1], 0.1))
    assert sizes == [16, 32, 64, 128, 256, 256]


@pytest.mark.parametrize("seconds", [2.5, 10.0])
def test_chunks_of_a_good_length_keep_their_size(seconds: float) -> None:
    assert next_chunk(64, seconds) == 64
