"""Copies an installation's topics to another cluster, as a backup and its restore do.

Partition, order, key, value, headers and timestamp of each record stay, and its offset except on
compacted topics. A topic whose first records are gone gets empty ones in their place, which are
deleted again.
"""

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from deploy import topics as topics_module
from retrail_runtime import kafka
from schemas.settings import Settings
from schemas.topics import Topics, specs

ORDER = (
    "retriever_releases",
    "training_runs",
    "labelled_pairs",
    "judged_events",
    "trajectory_events",
    "trajectory_events_dlq",
    "documents_dlq",
    "otlp_spans",
    "agent_spans",
    "documents",
    "outcomes",
    "erasures",
)
"""A topic is copied before those that its records refer to (docs/operate.md)."""


def copy(source: Settings, target: Settings) -> None:
    """Create the topics, copy their records with their timestamps, and restore their settings."""
    topics_module.ensure(target)
    set_timestamps(target, "CreateTime")
    names = Topics.of(source)
    for field in ORDER:
        copy_topic(source, target, getattr(names, field))
    set_timestamps(target, "LogAppendTime")


def copy_topic(source: Settings, target: Settings, topic: str) -> None:
    """Copy one topic."""
    producer = Producer(
        target.kafka(enable_idempotence=True, acks="all", message_max_bytes=5_000_000)
    )
    compacted = topic in {spec.name for spec in specs(source) if spec.retention == "compact"}
    beginnings: dict[int, int] = {}
    for record in kafka.read_to_end(source, topic):
        partition = record.partition
        if partition not in beginnings and not compacted:
            beginnings[partition] = record.offset
            for _ in range(record.offset):
                producer.produce(topic, b"", None, partition=partition)
        producer.produce(
            topic,
            record.value,
            record.key,
            partition=partition,
            headers=list(record.headers),
            timestamp=record.timestamp,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    behind = [TopicPartition(topic, p, first) for p, first in beginnings.items() if first]
    if behind:
        admin = AdminClient(target.kafka())
        for future in admin.delete_records(behind).values():
            future.result(30)


def set_timestamps(settings: Settings, kind: str) -> None:
    """Whether the timestamps of the topics that carry the broker's are those of the producer."""
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            spec.name,
            incremental_configs=[
                ConfigEntry(
                    "message.timestamp.type",
                    kind,
                    incremental_operation=AlterConfigOpType.SET,
                )
            ],
        )
        for spec in specs(settings)
        if spec.log_append_time
    ]
    admin = AdminClient(settings.kafka())
    for future in admin.incremental_alter_configs(resources).values():
        future.result(30)
