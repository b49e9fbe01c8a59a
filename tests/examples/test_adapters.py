"""The examples of the adapters, over a fake retriever; their events go to a mock of Kafka."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from retrail import Publisher
from schemas.events import Answer, Browse, Reasoning, Search, parse
from tests.serving.adapters.test_langchain import Alone
from tests.serving.fakes import TEXTS

EXAMPLES = Path(__file__).parents[2] / "examples"
TOPIC = "trajectory-events"


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    """A broker inside librdkafka."""
    owner = Producer({"test.mock.num.brokers": 1, "allow.auto.create.topics": True, "log_level": 0})
    broker = next(iter(owner.list_topics(timeout=10).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    owner.flush(1)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def events(bootstrap: str, topic: str, count: int) -> list[Any]:
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "any"})
    try:
        reader.assign([TopicPartition(topic, n, 0) for n in range(4)])
        found: list[Any] = []
        while len(found) < count:
            message = reader.poll(10)
            assert message is not None, f"{len(found)} of {count} events came"
            assert message.error() is None, message.error()
            found.append(parse(message.value() or b"").event)
    finally:
        reader.close()
    return sorted(found, key=lambda event: int(event.seq))


@pytest.mark.parametrize("name", ["langchain_agent", "openai_tools"])
def test_its_work_is_published(name: str, bootstrap: str) -> None:
    prefix = f"{name}_"
    auto = Producer({"bootstrap.servers": bootstrap, "allow.auto.create.topics": True})
    auto.list_topics(f"{prefix}{TOPIC}", timeout=10)
    with Publisher("example", bootstrap=bootstrap, topic_prefix=prefix, on_error="raise") as to:
        answer = example(name).work("open a gzip file", Alone(), to)
    assert answer == TEXTS["gzip"]
    published = events(bootstrap, f"{prefix}{TOPIC}", to.stats.delivered)
    kinds = [event.type for event in published]
    assert kinds[0] == "search"
    assert kinds[-3:] == ["reasoning", "answer", "end"]
    search, answered = published[0], published[-2]
    assert isinstance(search, Search)
    assert isinstance(answered, Answer)
    assert (search.query, search.hits[0].doc_id) == ("open a gzip file", "gzip")
    assert answered.text == TEXTS["gzip"]
    [browse] = [event for event in published if isinstance(event, Browse)]
    last = [event for event in published if isinstance(event, Reasoning)][-1]
    assert (browse.doc_id, last.about) == ("gzip", "gzip")
