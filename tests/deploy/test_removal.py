"""Removing what an installation left on a broker."""

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy import topics as topics_module
from deploy.removal import remove
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from schemas.topics import Topics, specs
from tests.waiting import eventually


def test_removes_one_installation_and_leaves_others(settings: Settings, topics: Topics) -> None:
    other = settings.model_copy(update={"topic_prefix": f"other_{settings.topic_prefix}"})
    topics_module.ensure(other)
    group = settings.group("mine")
    consumer = Consumer(settings.kafka(group_id=group))
    consumer.commit(offsets=[TopicPartition(topics.judged_events, 0, 0)], asynchronous=False)
    consumer.close()

    removed = remove(settings)

    assert set(removed) == {group} | {spec.name for spec in specs(settings)}
    admin = AdminClient(settings.kafka())

    def left() -> set[str]:
        return {name for name in admin.list_topics(timeout=10).topics if name in removed}

    eventually(lambda: not left(), what="end of the topics")
    assert Topics.of(other).documents in admin.list_topics(timeout=10).topics
    assert remove(settings) == []
    remove(other)


def test_needs_a_prefix() -> None:
    with pytest.raises(ConfigurationError, match="RETRAIL_TOPIC_PREFIX"):
        remove(Settings())
