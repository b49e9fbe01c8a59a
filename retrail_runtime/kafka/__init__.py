"""Kafka: clients, reading a topic to its end, sending with acknowledgement.

May import ``schemas`` and the rest of ``retrail_runtime``.
"""

from retrail_runtime.kafka.clients import (
    STALL_SECONDS,
    admin,
    consumer,
    error_message,
    partition_counts,
    producer,
    report,
    require_broker,
    topic_id,
)
from retrail_runtime.kafka.reading import (
    Record,
    offsets,
    place,
    read_to_end,
    ready,
    record,
    skipped,
)
from retrail_runtime.kafka.sending import Outgoing, publish_and_wait, record_size, send_all

__all__ = [
    "STALL_SECONDS",
    "Outgoing",
    "Record",
    "admin",
    "consumer",
    "error_message",
    "offsets",
    "partition_counts",
    "place",
    "producer",
    "publish_and_wait",
    "read_to_end",
    "ready",
    "record",
    "record_size",
    "report",
    "require_broker",
    "send_all",
    "skipped",
    "topic_id",
]
