"""Send records and wait until all replicas have them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from retrail_runtime.kafka.clients import STALL_SECONDS, error_message
from schemas.errors import DeliveryError

_BATCH_OVERHEAD = 1024
"""Bytes of a record batch around its records, generously."""

Headers = Iterable[tuple[str, bytes]]


class Outgoing(NamedTuple):
    """A record to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes, as a topic's ``max.message.bytes`` counts them, or a few more."""
        return record_size(self.key, self.value, self.headers)


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
        records: whole ones or (key, value), taken one by one while the queue has room.
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
            reason = reason or error.str()
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
    """Enqueue a record, after waiting for room in the producer's queue."""
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
                f"Kafka did not take a record for {topic}: {error_message(error)}", topic=topic
            ) from error
        else:
            producer.poll(0)
            return
