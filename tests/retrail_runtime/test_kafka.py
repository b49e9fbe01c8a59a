"""Reading to the end, acknowledged writing, and what a process needs of a broker; on a real one."""

from contextlib import closing

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from prometheus_client import REGISTRY

from retrail_runtime import kafka
from retrail_runtime.kafka import require_broker
from schemas.errors import BrokerUnavailableError, DeliveryError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES, Topics
from tests.waiting import eventually


def test_what_is_acknowledged_is_read(settings: Settings, topics: Topics) -> None:
    producer = kafka.producer(settings)
    written = {(f"k{n}".encode(), f"v{n}".encode()) for n in range(2500)}
    assert kafka.send_all(producer, topics.labelled_pairs, sorted(written)) == 2500
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


def test_the_end_is_the_last_stable_offset(settings: Settings, topics: Topics) -> None:
    plain = kafka.producer(settings)
    kafka.publish_and_wait(plain, topics.training_runs, value=b"before")
    opened = kafka.producer(settings, transactional_id=f"{settings.topic_prefix}open")
    opened.init_transactions()
    opened.begin_transaction()
    kafka.publish_and_wait(opened, topics.training_runs, value=b"opened")
    kafka.publish_and_wait(plain, topics.training_runs, value=b"behind")

    def values() -> list[bytes | None]:
        return [record.value for record in kafka.read_to_end(settings, topics.training_runs)]

    with closing(kafka.consumer(settings)) as asker:
        assert kafka.offsets(asker, topics.training_runs) == {0: (0, 1)}
        assert values() == [b"before"]
        opened.commit_transaction()
        assert values() == [b"before", b"opened", b"behind"]
        assert kafka.offsets(asker, topics.training_runs) == {0: (0, 4)}


def test_reading_a_topic_that_does_not_exist(settings: Settings) -> None:
    with pytest.raises(TopicMismatchError, match="retrail topics create"):
        list(kafka.read_to_end(settings, Topics.of(settings).documents))


def test_refused_record_raises(settings: Settings, topics: Topics) -> None:
    small = f"{settings.topic_prefix}small"
    admin = AdminClient(settings.kafka())
    topic = NewTopic(small, num_partitions=1, config={"max.message.bytes": "1000"})
    admin.create_topics([topic])[small].result()
    with pytest.raises(DeliveryError, match="small"):
        kafka.publish_and_wait(kafka.producer(settings), small, value=b"x" * 5000)
    with pytest.raises(DeliveryError, match=r"records for .*small") as caught:
        kafka.send_all(kafka.producer(settings), small, [(None, b"x" * 5000)] * 2)
    assert caught.value.topic == small


def test_a_refused_record_is_the_last_one_taken(settings: Settings, topics: Topics) -> None:
    """What comes behind it would be out of order on the topic."""
    producer = kafka.producer(settings, message_max_bytes=1000)
    records = iter([(b"a", b"fits"), (b"b", b"x" * 5000), (b"c", b"never taken")])
    with pytest.raises(DeliveryError, match="training-runs"):
        kafka.send_all(producer, topics.training_runs, records)
    assert list(records) == [(b"c", b"never taken")]


def test_each_acknowledged_record_is_reported(settings: Settings, topics: Topics) -> None:
    offsets: list[int] = []
    records = [kafka.Outgoing(b"k", b"v", [("h", b"x")])] * 5
    producer = kafka.producer(settings)
    assert kafka.send_all(producer, topics.training_runs, records, on_delivery=offsets.append) == 5
    assert offsets == [0, 1, 2, 3, 4]


def test_the_size_of_a_record_is_that_of_its_largest_batch(
    settings: Settings, topics: Topics
) -> None:
    """A topic accepts records up to :func:`record_size`."""
    value = b"x" * (MAX_EVENT_BYTES - kafka.record_size(b"k", b"", [("h", b"x")]))
    record = kafka.Outgoing(b"k", value, [("h", b"x")])
    assert record.size == MAX_EVENT_BYTES
    kafka.send_all(kafka.producer(settings), topics.labelled_pairs, [record])


def test_broker_that_does_not_answer_is_named_with_what_to_do() -> None:
    settings = Settings(kafka_bootstrap="127.0.0.1:1")
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1 .*retrail up.*_BOOTSTRAP"):
        require_broker(settings, timeout=1)


def test_the_metric_of_reachability_follows_the_latest_call(
    settings: Settings, topics: Topics
) -> None:
    def up() -> float | None:
        return REGISTRY.get_sample_value("retrail_dependency_up", {"dependency": "kafka"})

    nowhere = Settings(kafka_bootstrap="127.0.0.1:1")
    assert kafka.topic_id(kafka.admin(settings), topics.documents)
    assert up() == 1
    with pytest.raises(BrokerUnavailableError):
        kafka.topic_id(kafka.admin(nowhere), topics.documents, timeout=1)
    assert up() == 0
    with closing(kafka.consumer(settings)) as reader:
        kafka.offsets(reader, topics.documents)
    assert up() == 1
    with closing(kafka.consumer(nowhere)) as reader, pytest.raises(BrokerUnavailableError):
        kafka.offsets(reader, topics.documents, timeout=1)
    assert up() == 0


def test_missing_topics_are_named(settings: Settings) -> None:
    with pytest.raises(TopicMismatchError, match=r"labelled-pairs.*retrail topics create"):
        require_broker(settings)


def test_partitions_of_existing_topics(settings: Settings, topics: Topics) -> None:
    both = [topics.documents, topics.training_runs]
    assert require_broker(settings, both) == {topics.documents: 2, topics.training_runs: 1}
    with pytest.raises(TopicMismatchError, match=r"documents has 2, .*training-runs has 1"):
        require_broker(settings, both, keyed_alike=True)


def test_a_second_partition_of_the_releases_is_refused(settings: Settings, topics: Topics) -> None:
    """Its records would not be read, and two processes would hold a lease."""
    admin = AdminClient(settings.kafka())
    name = topics.retriever_releases
    admin.create_partitions([NewPartitions(name, 2)])[name].result()
    eventually(lambda: kafka.partition_counts(settings)[name] == 2)
    message = rf"{name} has 2 partitions, expected 1\. .*RETRAIL_TOPIC_PREFIX"
    with pytest.raises(TopicMismatchError, match=message) as caught:
        require_broker(settings, [topics.documents, name])
    assert caught.value.topic == name
