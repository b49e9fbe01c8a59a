"""Reading to the end and acknowledged writing, on a real broker."""

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from retrail_runtime import kafka
from retrail_runtime.following import topic_id
from schemas.errors import TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics


def test_what_is_acknowledged_is_read(settings: Settings, topics: Topics) -> None:
    producer = kafka.producer(settings)
    written = {(f"k{n}".encode(), f"v{n}".encode()) for n in range(2500)}
    assert kafka.publish_all(producer, topics.labelled_pairs, sorted(written)) == 2500
    records = list(kafka.read_to_end(settings, topics.labelled_pairs))
    assert {(record.key, record.value) for record in records} == written
    for partition in (0, 1):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_offset_of_an_acknowledged_record(settings: Settings, topics: Topics) -> None:
    producer = kafka.producer(settings)
    written = [
        kafka.publish_and_wait(producer, topics.training_runs, value=b"a", headers=[("h", b"x")])
        for _ in range(3)
    ]
    assert written == [0, 1, 2]
    [last] = kafka.read_to_end(settings, topics.training_runs, {0: 2})
    assert (last.offset, last.headers) == (2, (("h", b"x"),))


def test_nothing_to_read(settings: Settings, topics: Topics) -> None:
    assert list(kafka.read_to_end(settings, topics.labelled_pairs)) == []
    kafka.publish_and_wait(kafka.producer(settings), topics.training_runs, value=b"a")
    assert list(kafka.read_to_end(settings, topics.training_runs, {0: 1})) == []
    assert list(kafka.read_to_end(settings, topics.training_runs, {0: 99})) == []


def test_holes_of_aborted_transactions_end_the_read(settings: Settings, topics: Topics) -> None:
    plain = kafka.producer(settings)
    kafka.publish_and_wait(plain, topics.training_runs, value=b"kept")
    aborted = kafka.producer(settings, transactional_id=f"{settings.topic_prefix}t")
    aborted.init_transactions()
    aborted.begin_transaction()
    kafka.publish_and_wait(aborted, topics.training_runs, value=b"aborted")
    aborted.abort_transaction()
    values = [record.value for record in kafka.read_to_end(settings, topics.training_runs)]
    assert values == [b"kept"]


def test_reading_a_topic_that_does_not_exist(settings: Settings) -> None:
    with pytest.raises(TopicMismatchError, match="retrail topics create"):
        list(kafka.read_to_end(settings, Topics.of(settings).documents))


def test_asking_the_broker_prints_nothing(
    settings: Settings, topics: Topics, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(10):
        assert topic_id(settings, topics.documents)
    assert "rdkafka" not in capfd.readouterr().err


def test_refused_record_raises(settings: Settings, topics: Topics) -> None:
    small = f"{settings.topic_prefix}small"
    admin = AdminClient(settings.kafka())
    topic = NewTopic(small, num_partitions=1, config={"max.message.bytes": "1000"})
    admin.create_topics([topic])[small].result()
    with pytest.raises(kafka.DeliveryError, match="small"):
        kafka.publish_and_wait(kafka.producer(settings), small, value=b"x" * 5000)
    with pytest.raises(kafka.DeliveryError, match="small"):
        kafka.publish_all(kafka.producer(settings), small, [(None, b"x" * 5000)])
