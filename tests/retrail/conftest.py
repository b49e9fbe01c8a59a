"""A librdkafka mock cluster, an address without a broker, and a producer without a network."""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from retrail import Publisher, outbox

Made = Callable[..., Publisher]
Published = Callable[[Publisher], list[dict[str, Any]]]

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
        """Their values by trajectory, in order of ``seq``, or of the log without one."""
        values = [json.loads(m.value() or b"") for m in self.messages(topic, count)]
        return sorted(values, key=lambda event: (event["trajectory_id"], event.get("seq", 0)))


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


def quick() -> dict[str, Any]:
    """librdkafka looks for messages that have timed out once in that time."""
    return {"linger.ms": 0, "reconnect.backoff.max.ms": 200}


@pytest.fixture
def make(mock_cluster: Cluster, prefix: str) -> Iterator[Made]:
    """Publishers on the mock cluster, closed after the test."""
    made: list[Publisher] = []

    def publisher(**arguments: Any) -> Publisher:
        defaults = {
            "agent": "my-agent",
            "model": "m",
            "bootstrap": mock_cluster.bootstrap,
            "topic_prefix": prefix,
        }
        made.append(Publisher(**(defaults | arguments)))
        return made[-1]

    yield publisher
    for one in made:
        one.close()


@pytest.fixture
def published(mock_cluster: Cluster, prefix: str) -> Published:
    """Reads back what a publisher has published."""

    def read(publisher: Publisher) -> list[dict[str, Any]]:
        assert publisher.flush(10) == 0
        return mock_cluster.events(f"{prefix}trajectory-events", publisher.stats.delivered)

    return read


class FakeProducer:
    """Takes records in memory and acknowledges them; ``full`` refuses them as librdkafka does."""

    made: ClassVar[list["FakeProducer"]]
    full: bool = False
    error: Exception | None = None

    def __init__(self, _config: dict[str, Any]) -> None:
        type(self).made.append(self)
        self.records: list[tuple[str, bytes, bytes]] = []
        self._reports: list[Callable[[None, None], None]] = []
        self._changed = threading.Condition()

    def produce(
        self, topic: str, *, value: bytes, key: bytes, headers: Any, on_delivery: Any
    ) -> None:
        if self.full:
            raise BufferError("Local: Queue full")
        if self.error is not None:
            raise self.error
        with self._changed:
            self.records.append((topic, key, value))
            self._reports.append(on_delivery)
            self._changed.notify_all()

    def poll(self, timeout: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._reports, timeout)
            reports, self._reports = self._reports, []
        for report in reports:
            report(None, None)
        return len(reports)

    def purge(self) -> None: ...

    def __len__(self) -> int:
        return len(self._reports)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeProducer]:
    """The class of which publishers make their producers."""

    class Producers(FakeProducer):
        made: ClassVar[list[FakeProducer]] = []

    monkeypatch.setattr(outbox, "Producer", Producers)
    return Producers
