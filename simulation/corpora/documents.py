"""A corpus onto the topic ``documents``, from where every index is built."""

from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message

from retrail_runtime import kafka
from retrail_runtime.kafka import DeliveryError
from schemas.documents import Document
from schemas.errors import InputError
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES, Topics

OVERHEAD = 1024
"""Bytes of a record batch around key and value, generously."""


def require_fitting(documents: Sequence[Document]) -> None:
    """Check before the work that the topic takes every document.

    Raises:
        InputError: one is too large.
    """
    for document in documents:
        size = len(document.to_json()) + len(document.doc_id.encode()) + OVERHEAD
        if size > MAX_EVENT_BYTES:
            raise InputError(
                f"Document {document.doc_id} has {size:,} bytes; the topic takes "
                f"{MAX_EVENT_BYTES:,}. Split it into several documents."
            )


def send_documents(
    settings: Settings, documents: Sequence[Document], *, on_sent: Callable[[int, int], None]
) -> None:
    """Send documents; returns once all of them are acknowledged.

    Args:
        on_sent: called with how many were sent, and how many there are.

    Raises:
        DeliveryError: Kafka refused some, or did not answer in time.
    """
    topic = Topics.of(settings).documents
    producer = kafka.producer(settings)
    failures: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    for done, document in enumerate(documents, start=1):
        while True:
            try:
                producer.produce(
                    topic,
                    key=document.doc_id.encode(),
                    value=document.to_json(),
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
            except KafkaException as error:
                raise DeliveryError(f"Kafka did not take a document: {error}") from error
        producer.poll(0)
        on_sent(done, len(documents))
    left = producer.flush(kafka.STALL_SECONDS)
    if failures or left:
        reason = failures[0] if failures else "no answer in time"
        raise DeliveryError(
            f"Kafka did not acknowledge {len(failures) + left:,} documents: {reason}."
        )
