"""Many records to one topic, acknowledged."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message

from retrail_runtime.kafka import STALL_SECONDS, DeliveryError, producer
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES

OVERHEAD = 1024
"""Bytes of a record batch around key, value and headers, generously."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to send."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes, as the topic's limit counts them."""
        headers = sum(len(name) + len(value) + 10 for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers + OVERHEAD

    @property
    def fits(self) -> bool:
        """Whether a topic takes it."""
        return self.size <= MAX_EVENT_BYTES


def send_all(
    settings: Settings,
    topic: str,
    records: Iterable[Outgoing],
    *,
    on_sent: Callable[[int], None] = lambda count: None,
) -> int:
    """Send records in their order; returns how many, once all replicas have every one.

    Raises:
        DeliveryError: Kafka refused some, or did not answer in time; sending all again is safe.
    """
    sender = producer(settings)
    failures: list[str] = []
    count = 0

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    for outgoing in records:
        while True:
            try:
                sender.produce(
                    topic,
                    value=outgoing.value,
                    key=outgoing.key,
                    headers=list(outgoing.headers),
                    on_delivery=delivered,
                )
                break
            except BufferError:
                sender.poll(0.1)
            except KafkaException as error:
                raise DeliveryError(f"Kafka did not take a record for {topic}: {error}") from error
        count += 1
        on_sent(1)
        sender.poll(0)
        if failures:
            break
    left = sender.flush(STALL_SECONDS + 5)
    if failures or left:
        reason = failures[0] if failures else "no answer in time"
        raise DeliveryError(
            f"Kafka did not acknowledge {len(failures) + left:,} records for {topic}: {reason}. "
            "Nothing is lost by running the command again."
        )
    return count
