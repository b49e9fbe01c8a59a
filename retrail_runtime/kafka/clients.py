"""Consumers, producers and admin clients, and whether the brokers answer."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
)
from confluent_kafka.admin import AdminClient

from retrail_runtime.logging import RateLimit
from schemas.errors import BrokerUnavailableError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES, specs

log = structlog.get_logger(__name__)

STALL_SECONDS = 30.0
"""Silence of the brokers after which a bounded read or write gives up."""

_REPORTS = RateLimit(seconds=10.0)


def consumer(
    settings: Settings,
    group: str | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
    **overrides: Any,
) -> Consumer:
    """A consumer of committed records, without automatic commits.

    Args:
        group: full group id (``settings.group(…)``); without one the consumer is for ``assign``.
        on_error: called from ``poll`` with errors that belong to no record; by default logged.
        overrides: librdkafka options, dots as underscores.
    """
    config = {
        "group.id": group or f"{settings.topic_prefix}retrail-reader",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        "isolation.level": "read_committed",
        "check.crcs": True,
        "session.timeout.ms": int(settings.kafka_session_timeout * 1000),
        "heartbeat.interval.ms": max(100, int(settings.kafka_session_timeout * 1000 / 4)),
        "fetch.message.max.bytes": MAX_EVENT_BYTES + ADDED_BYTES,
    }
    callbacks = {"error_cb": on_error} if on_error else {}
    return Consumer(_connection(settings) | callbacks | config | _dotted(overrides))


def admin(settings: Settings) -> AdminClient:
    """A client for questions about topics and groups."""
    return AdminClient(_connection(settings))


def producer(settings: Settings, **overrides: Any) -> Producer:
    """An idempotent producer: acknowledged by all replicas, in order, partitioned like Java."""
    config = {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "message.max.bytes": MAX_EVENT_BYTES + ADDED_BYTES,
        "delivery.timeout.ms": int(STALL_SECONDS * 1000),
        "linger.ms": 5,
    }
    return Producer(_connection(settings) | config | _dotted(overrides))


def partition_counts(settings: Settings, timeout: float = 10.0) -> dict[str, int]:
    """Number of partitions of each topic on the cluster.

    Raises:
        BrokerUnavailableError: nothing answers at the bootstrap address within ``timeout`` seconds.
    """
    # What librdkafka would log is in the exception.
    quiet = logging.getLogger(f"{__name__}.librdkafka")
    quiet.setLevel(logging.CRITICAL)
    try:
        found = AdminClient(settings.kafka(), logger=quiet).list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka does not answer at {settings.kafka_bootstrap} ({error_message(error)}). Start "
            "a local stack with `retrail up`, or set RETRAIL_KAFKA_BOOTSTRAP (and "
            "RETRAIL_KAFKA_SECURITY_PROTOCOL, if it is secured) to a cluster that runs."
        ) from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def topic_id(admin: AdminClient, topic: str, timeout: float = 10.0) -> str:
    """The id that a topic got at its creation: another one of the same name has another id.

    Raises:
        BrokerUnavailableError: the broker does not answer within ``timeout`` seconds.
        TopicMismatchError: there is no such topic.
    """
    try:
        answer = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout)
        return str(answer[topic].result().topic_id)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMismatchError(f"Kafka has no topic {topic}.", topic=topic) from error
        raise BrokerUnavailableError(
            f"Kafka did not describe {topic}: {error_message(error)}", topic=topic
        ) from error


def require_broker(
    settings: Settings,
    topics: Iterable[str] | None = None,
    *,
    keyed_alike: bool = False,
    timeout: float = 10.0,
) -> dict[str, int]:
    """Fail fast if Kafka does not answer, or lacks topics.

    Args:
        topics: those that the caller needs; by default all of the installation.
        keyed_alike: they must have the same number of partitions, because the caller writes to the
            partition that it reads.
        timeout: seconds to wait for an answer.

    Returns:
        Number of partitions of each topic in ``topics``.

    Raises:
        BrokerUnavailableError: nothing answers at the bootstrap address.
        TopicMismatchError: topics do not exist, or their numbers of partitions differ.
    """
    wanted = [spec.name for spec in specs(settings)] if topics is None else list(topics)
    found = partition_counts(settings, timeout)
    if missing := [name for name in wanted if name not in found]:
        raise TopicMismatchError(
            f"Kafka at {settings.kafka_bootstrap} has no topic {', '.join(missing)}. Create what "
            "is missing with `retrail topics create`.",
            topic=missing[0],
        )
    counts = {name: found[name] for name in wanted}
    if keyed_alike and len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {number}" for name, number in counts.items())
        raise TopicMismatchError(
            f"These topics need the same number of partitions: {listed}. Use a new "
            "RETRAIL_TOPIC_PREFIX and `retrail topics create`."
        )
    return counts


def _connection(settings: Settings) -> dict[str, Any]:
    # Below "critical" its log repeats what the callback gets, and goes to stderr.
    return settings.kafka() | {"error_cb": report, "log_level": 2}


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in overrides.items()}


def report(error: KafkaError) -> None:
    """Log an error of the connection, from which librdkafka recovers by itself.

    In an outage it reports hundreds: each kind is logged once in a while.
    """
    if error.fatal() or _REPORTS.allows(error.code()):
        log.warning("kafka reports", error=error.str(), fatal=error.fatal())


def error_message(error: KafkaException) -> str:
    """The text of the ``KafkaError`` in an exception."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
