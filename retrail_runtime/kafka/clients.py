"""Consumers, producers and admin clients; sending with acknowledgement; required topics."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
)
from confluent_kafka.admin import AdminClient

from retrail_runtime.kafka.refusals import MISSING_RIGHT, Probe, failure, made, message_of
from retrail_runtime.metrics import DEPENDENCY_UP
from retrail_runtime.process import RateLimit
from schemas.errors import ConfigurationError, DeliveryError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES, Topics, specs

log = structlog.get_logger(__name__)

STALL_SECONDS = 30.0
"""A bounded read or write fails after this time without an answer of the brokers."""

_REPORTS = RateLimit(seconds=10.0)

_BATCH_OVERHEAD = 1024
"""Upper bound of the bytes of a record batch around its records."""

Headers = Iterable[tuple[str, bytes]]


class Outgoing(NamedTuple):
    """A record to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Upper bound of its bytes, as a topic's ``max.message.bytes`` counts them."""
        return record_size(self.key, self.value, self.headers)


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
    return made(Consumer, config | _connection(settings, **overrides) | callbacks)


def admin(settings: Settings) -> AdminClient:
    """A client that describes topics and groups."""
    return made(AdminClient, _connection(settings))


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
    return made(Producer, config | _connection(settings, **overrides))


def partition_counts(
    settings: Settings, timeout: float = 10.0, wanted: Iterable[str] = ()
) -> dict[str, int]:
    """Number of partitions of each topic that this user may describe.

    Args:
        timeout: seconds to wait for an answer.
        wanted: topics that must be among them, or not exist.

    Raises:
        BrokerUnavailableError: nothing answers at the bootstrap address.
        ConfigurationError: Kafka refuses the connection, a certificate cannot be read, or the user
            may not describe a topic of ``wanted``.
    """
    probe = Probe(settings)
    found = probe.metadata(timeout).topics
    if hidden := probe.undescribed(name for name in wanted if name not in found):
        raise ConfigurationError(
            f"Kafka at {settings.kafka_bootstrap} does not describe {', '.join(hidden)}. "
            f"{MISSING_RIGHT}",
            topic=hidden[0],
        )
    return {name: len(topic.partitions) for name, topic in found.items()}


def topic_id(admin: AdminClient, topic: str, timeout: float = 10.0) -> str:
    """The id of a topic; a topic that is deleted and created again gets another id.

    Raises:
        BrokerUnavailableError: the broker does not answer within ``timeout`` seconds.
        ConfigurationError: the user may not describe it.
        TopicMismatchError: there is no such topic.
    """
    try:
        answer = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout)
        found = str(answer[topic].result().topic_id)
        DEPENDENCY_UP.labels("kafka").set(1)
        return found
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMismatchError(f"Kafka has no topic {topic}.", topic=topic) from error
        DEPENDENCY_UP.labels("kafka").set(0)
        message = f"Kafka did not describe {topic}: {error_message(error)}"
        raise failure(error.args[0], message, topic) from error


def require_broker(
    settings: Settings,
    topics: Iterable[str] | None = None,
    *,
    keyed_alike: bool = False,
    timeout: float = 10.0,
) -> dict[str, int]:
    """Fail fast if Kafka does not answer, or lacks topics.

    Args:
        topics: the topics that the caller needs; by default all of the installation.
        keyed_alike: require the same number of partitions of all of them.
        timeout: seconds to wait for an answer.

    Returns:
        Number of partitions of each topic in ``topics``.

    Raises:
        BrokerUnavailableError: nothing answers at the bootstrap address.
        ConfigurationError: Kafka refuses the connection, or the user may not describe a topic.
        TopicMismatchError: a topic does not exist or has another number of partitions.
    """
    wanted = [spec.name for spec in specs(settings)] if topics is None else list(topics)
    found = partition_counts(settings, timeout, wanted)
    if missing := [name for name in wanted if name not in found]:
        raise TopicMismatchError(
            f"Kafka at {settings.kafka_bootstrap} has no topic {', '.join(missing)}. Create it "
            "with `retrail topics create`.",
            topic=missing[0],
        )
    counts = {name: found[name] for name in wanted}
    for name in Topics.of(settings).single:
        if counts.get(name, 1) != 1:
            raise TopicMismatchError(
                f"{name} has {counts[name]} partitions, expected 1. Use a new RETRAIL_TOPIC_PREFIX "
                "and `retrail topics create`.",
                topic=name,
            )
    if keyed_alike and len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {number}" for name, number in counts.items())
        raise TopicMismatchError(
            f"These topics need the same number of partitions: {listed}. Use a new "
            "RETRAIL_TOPIC_PREFIX and `retrail topics create`."
        )
    return counts


def _connection(settings: Settings, **overrides: Any) -> dict[str, Any]:
    # Lower levels of its log repeat what the callback gets.
    return settings.kafka(**overrides) | {"error_cb": report, "log_level": 2}


def report(error: KafkaError) -> None:
    """Log an error of the connection, from which librdkafka recovers; rate-limited by kind."""
    if error.fatal() or _REPORTS.allows(error.code()):
        log.warning("kafka client error", error=error.str(), fatal=error.fatal())


def error_message(error: KafkaException) -> str:
    """The text of the ``KafkaError`` in an exception."""
    cause = error.args[0] if error.args else error
    return message_of(cause) if isinstance(cause, KafkaError) else str(cause)


def record_size(key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
    """Upper bound of the bytes of a batch that holds this record alone."""
    named = sum(len(name) + len(content or b"") + 10 for name, content in headers)
    return len(key or b"") + len(value or b"") + named + _BATCH_OVERHEAD


def publish_and_wait(
    producer: Producer,
    topic: str,
    *,
    value: bytes | None,
    key: bytes | None = None,
    headers: Headers = (),
) -> int:
    """Send one record; returns its offset once all replicas have it.

    Raises:
        DeliveryError: as :func:`send_all`.
    """
    offsets: list[int] = []
    send_all(producer, topic, [Outgoing(key, value, headers)], on_delivery=offsets.append)
    return offsets[0]


def send_all(
    producer: Producer,
    topic: str,
    records: Iterable[Outgoing | tuple[bytes | None, bytes | None]],
    *,
    on_delivery: Callable[[int], object] = lambda offset: None,
) -> int:
    """Send records in their order; returns how many, once all replicas have every one.

    Args:
        records: taken one by one while the producer's queue has capacity.
        on_delivery: called with the offset of each acknowledged record.

    Raises:
        DeliveryError: the brokers refused a record, or did not answer in time. Nothing more is
            taken from ``records``; those sent before it may be on the topic.
    """
    sent = acknowledged = 0
    reason = ""

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal acknowledged, reason
        if error is not None:
            reason = reason or message_of(error)
        else:
            acknowledged += 1
            on_delivery(message.offset() or 0)

    for record in records:
        _produce(producer, topic, Outgoing(*record), delivered)
        sent += 1
        if reason:
            break
    producer.flush(STALL_SECONDS + 5)
    if acknowledged < sent:
        raise DeliveryError(
            f"Kafka did not acknowledge {sent - acknowledged:,} records for {topic}: "
            f"{reason or 'no answer in time'}. Sending them again is safe.",
            topic=topic,
        )
    return sent


def _produce(
    producer: Producer,
    topic: str,
    record: Outgoing,
    delivered: Callable[[KafkaError | None, Message], None],
) -> None:
    """Enqueue a record; wait while the producer's queue is full."""
    while True:
        try:
            producer.produce(
                topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=delivered,
            )
        except BufferError:
            producer.poll(0.1)
        except KafkaException as error:
            raise DeliveryError(
                f"Kafka refused a record for {topic}: {error_message(error)}", topic=topic
            ) from error
        else:
            producer.poll(0)
            return
