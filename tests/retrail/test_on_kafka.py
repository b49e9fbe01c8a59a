"""The client on Apache Kafka: what arrives, where, and what an outage does to it."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Message, TopicPartition

from deploy import topics as deploy_topics
from deploy.kafka import KafkaBroker
from deploy.processes import free_ports
from retrail import Publisher
from retrail.wire import MAX_EVENT_BYTES
from schemas.events import cloudevents, parse
from schemas.settings import Settings
from schemas.topics import Topics
from tests.waiting import eventually


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, after org.apache.kafka.common.utils.Utils.murmur2."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) - len(key) % 4
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if tail := key[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def read(settings: Settings, topic: str, partitions: int) -> list[Message]:
    """Everything on a topic now."""
    consumer = Consumer(settings.kafka(group_id="any", enable_partition_eof=True))
    try:
        consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
        found, ended = [], 0
        while ended < partitions:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is None:
                found.append(message)
            else:
                ended += 1
        return found
    finally:
        consumer.close()


@pytest.fixture
def on_kafka(kafka: str, tmp_path: Path) -> Settings:
    """An installation on the broker, with its topics; no Milvus needed."""
    settings = Settings(
        kafka_bootstrap=kafka,
        topic_prefix=f"t{secrets.token_hex(4)}_",
        data_dir=tmp_path,
        partitions=8,
    )
    deploy_topics.ensure(settings)
    return settings


def test_events_arrive_in_order_with_headers_on_the_partition_of_their_key(
    on_kafka: Settings,
) -> None:
    with Publisher(
        "my-agent",
        "qwen3-30b",
        bootstrap=on_kafka.kafka_bootstrap,
        topic_prefix=on_kafka.topic_prefix,
    ) as publisher:
        for number in range(50):
            with publisher.trajectory(f"trajectory-{number}" + "é" * (number % 5)) as trajectory:
                trajectory.search("when was it built", [("d7", 0.5), "d2"])
                trajectory.browse("d2")
                trajectory.reason("It says 1965.")
                trajectory.other("calculator")
                trajectory.answer("1965")
                trajectory.end("correct")
        assert publisher.flush() == 0
        assert (publisher.stats.delivered, publisher.stats.lost) == (300, 0)
    messages = read(on_kafka, Topics.of(on_kafka).trajectory_events, 8)
    order: dict[str, list[int]] = {}
    for message in messages:
        event = parse(message.value() or b"").event
        order.setdefault(event.trajectory_id, []).append(event.seq)
        assert message.key() == event.trajectory_id.encode()
        assert message.partition() == (murmur2(message.key()) & 0x7FFFFFFF) % 8
        assert message.headers() == cloudevents(event, event.type)
        assert message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME
    assert list(order.values()) == [[0, 1, 2, 3, 4, 5]] * 50
    assert len({m.partition() for m in messages}) > 4


def test_the_largest_event_that_the_client_takes_is_taken_by_the_broker(
    on_kafka: Settings,
) -> None:
    with Publisher(
        "a", bootstrap=on_kafka.kafka_bootstrap, topic_prefix=on_kafka.topic_prefix
    ) as publisher:
        trajectory = publisher.trajectory("t")
        trajectory.answer("x" * (MAX_EVENT_BYTES - 2000))
        size = MAX_EVENT_BYTES - 2000
        while publisher.stats.dropped == 0:
            size += 100
            publisher.trajectory("t").answer("x" * size)
        assert publisher.flush(30) == 0
        assert publisher.stats.failed == 0, "the broker refused what the client took"
        assert publisher.stats.dropped == 1
        assert size < MAX_EVENT_BYTES


def test_a_topic_that_does_not_exist_is_reported(kafka: str) -> None:
    lost: list[Any] = []
    publisher = Publisher(
        "a",
        bootstrap=kafka,
        topic_prefix="absent_",
        on_failure=lost.append,
        kafka={"topic.metadata.propagation.max.ms": 100},
    )
    publisher.trajectory().browse("d")
    eventually(lambda: lost, what="loss")
    assert "Unknown topic" in lost[0].error
    publisher.close()


@pytest.mark.integration
def test_an_outage_at_the_start_and_one_later_lose_nothing(
    tmp_path: Path,
) -> None:
    [port] = free_ports(1)
    broker = KafkaBroker(tmp_path / "late", tmp_path / "late.log", port=port)
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}", data_dir=tmp_path, partitions=2)
    publisher = Publisher(
        "a",
        bootstrap=settings.kafka_bootstrap,
        kafka={"reconnect.backoff.max.ms": 500, "topic.metadata.propagation.max.ms": 60_000},
    )
    first, second = publisher.trajectory("first"), publisher.trajectory("second")
    try:
        for number in range(100):
            first.browse(f"d{number}")
        assert publisher.flush(1) == 100
        broker.start()
        deploy_topics.ensure(settings)
        assert publisher.flush(60) == 0
        broker.kill()
        for number in range(100):
            first.browse(f"d{number}")
            second.browse(f"d{number}")
        assert publisher.flush(1) == 200
        broker.start()
        assert publisher.flush(60) == 0
        assert publisher.stats.lost == 0
        messages = read(settings, "trajectory-events", 2)
        seqs: dict[bytes, list[int]] = {}
        for message in messages:
            seqs.setdefault(message.key() or b"", []).append(
                json.loads(message.value() or b"")["seq"]
            )
        assert seqs == {b"first": list(range(200)), b"second": list(range(100))}
    finally:
        publisher.close(0)
        broker.kill()
