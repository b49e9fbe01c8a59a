"""A librdkafka mock cluster: the client's own protocol code, without a broker to start."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

PARTITIONS = 4


@dataclass(frozen=True)
class Cluster:
    """Where the mock listens, and what lies on a topic of it."""

    bootstrap: str

    def messages(self, topic: str, count: int) -> list[Message]:
        """The first ``count`` records over all partitions."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "any", "check.crcs": True}
        )
        try:
            consumer.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
            found: list[Message] = []
            while len(found) < count:
                message = consumer.poll(10)
                assert message is not None, f"{len(found)} of {count} records came"
                assert message.error() is None, message.error()
                found.append(message)
            return found
        finally:
            consumer.close()

    def events(self, topic: str, count: int) -> list[dict[str, Any]]:
        """Their values, in order of ``seq``."""
        values = [json.loads(m.value() or b"") for m in self.messages(topic, count)]
        return sorted(values, key=lambda event: (event["trajectory_id"], event["seq"]))


@pytest.fixture(scope="session")
def mock_cluster() -> Iterator[Cluster]:
    """A mock broker in this process; topics are made by :func:`prefix`."""
    owner = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(owner.list_topics(timeout=10).brokers.values()))
    yield Cluster(f"{broker.host}:{broker.port}")
    owner.flush(1)


@pytest.fixture
def prefix(mock_cluster: Cluster) -> str:
    """A prefix of the test's own, under which trajectory-events exists."""
    name = f"t{secrets.token_hex(4)}_"
    producer = Producer(
        {"bootstrap.servers": mock_cluster.bootstrap, "allow.auto.create.topics": True}
    )
    producer.list_topics(f"{name}trajectory-events", timeout=10)
    return name
