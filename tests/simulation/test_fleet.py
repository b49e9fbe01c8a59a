"""A fleet publishes what its agents do, under the model of each."""

import json
import secrets
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from retrail import Timeout
from schemas.errors import DeliveryError, NoIndexError
from schemas.settings import Settings
from simulation import fleet
from simulation.corpus import Need
from simulation.scripted import PERSONAS
from tests.serving.fakes import TEXTS, FakeRetriever

NEEDS = [Need(f"n{n}", "open a gzip file", {"gzip": 1.0}) for n in range(6)]


@pytest.fixture
def settings() -> Any:
    """An installation whose broker is inside librdkafka."""
    owner = Producer({"test.mock.num.brokers": 1, "allow.auto.create.topics": True, "log_level": 0})
    broker = next(iter(owner.list_topics(timeout=10).brokers.values()))
    prefix = f"t{secrets.token_hex(4)}_"
    owner.list_topics(f"{prefix}trajectory-events", timeout=10)
    yield Settings(kafka_bootstrap=f"{broker.host}:{broker.port}", topic_prefix=prefix)
    owner.flush(1)


def published(settings: Settings, count: int) -> list[dict[str, Any]]:
    reader = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "any"})
    topic = f"{settings.topic_prefix}trajectory-events"
    try:
        reader.assign([TopicPartition(topic, n, 0) for n in range(4)])
        found = []
        while len(found) < count:
            message = reader.poll(10)
            assert message is not None, f"{len(found)} of {count} events came"
            found.append(json.loads(message.value() or b""))
        return found
    finally:
        reader.close()


def test_each_agent_publishes_one_trajectory_under_its_model(settings: Settings) -> None:
    todo = fleet.assignments(NEEDS, 12, seed=0, turn=1)
    progress: list[tuple[int, int]] = []
    retriever: Any = FakeRetriever(TEXTS, version=3)
    result = fleet.work(todo, retriever, settings, on_progress=lambda *at: progress.append(at))
    assert progress[-1] == (12, 12)
    events = published(settings, result.events)
    models = {e["trajectory_id"]: e["agent"]["model"] for e in events}
    assert models == {each.mind.trajectory_id: each.mind.persona.model for each in todo}
    assert set(models.values()) <= {persona.model for persona in PERSONAS}
    ends = [e["outcome"] for e in events if e["type"] == "end"]
    assert len(ends) == 12
    assert ends.count("correct") == result.correct
    assert {e["retriever_version"] for e in events if e["type"] == "search"} == {3}


def test_a_retriever_that_fails_stops_the_fleet(settings: Settings) -> None:
    retriever: Any = FakeRetriever()
    retriever.failure = NoIndexError("none")
    todo = fleet.assignments(NEEDS, 3, seed=0, turn=1)
    with pytest.raises(NoIndexError):
        fleet.work(todo, retriever, settings, on_progress=lambda *_: None)


def test_a_broker_that_takes_nothing_is_an_error(
    closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "TIMEOUT", Timeout(block=0.2, close=0.2))
    settings = Settings(kafka_bootstrap=closed_port)
    todo = fleet.assignments(NEEDS, 1, seed=0, turn=1)
    retriever: Any = FakeRetriever()
    with pytest.raises(DeliveryError, match="did not take the agents' events"):
        fleet.work(todo, retriever, settings, on_progress=lambda *_: None)
