"""Invalid records of ``documents`` go to ``documents.dlq``, once.

Every build reads the topic from its start and meets the same records again. So the offsets up to
which they were sent are committed under a group of their own. That group has no members: Kafka
removes its offsets after ``offsets.retention.minutes`` without a commit, and then the next build
sends the records again.
"""

from collections.abc import Iterable
from functools import cached_property

import structlog
from confluent_kafka import Consumer, Producer, TopicPartition

from consumers.indexing import metrics
from retrail_runtime import kafka
from schemas.base import DeadLetter
from schemas.errors import InvalidRecordError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)


class DeadLetters:
    """Sends records to the DLQ; for one thread. Connects when there is something to send."""

    def __init__(self, settings: Settings) -> None:
        topics = Topics.of(settings)
        self._settings = settings
        self._documents, self._queue = topics.documents, topics.documents_dlq

    @cached_property
    def _offsets(self) -> Consumer:
        return kafka.consumer(self._settings, self._settings.group("index-dead-letters"))

    @cached_property
    def _producer(self) -> Producer:
        return kafka.producer(self._settings)

    def send(self, invalid: Iterable[tuple[kafka.Record, str]]) -> None:
        """Send the records that no build has sent before; returns once all are acknowledged.

        Args:
            invalid: records in the order of their offsets, and what is wrong with each.

        Raises:
            DeliveryError: Kafka did not acknowledge one.
            KafkaException: Kafka did not return or commit the offsets.
        """
        by_partition: dict[int, list[tuple[kafka.Record, str]]] = {}
        for record, error in invalid:
            by_partition.setdefault(record.partition, []).append((record, error))
        for partition, letters in by_partition.items():
            sent = self._sent(partition)
            fresh = [(record, error) for record, error in letters if record.offset >= sent]
            if not fresh:
                continue
            kafka.send_all(self._producer, self._queue, (_letter(*one) for one in fresh))
            end = TopicPartition(self._documents, partition, fresh[-1][0].offset + 1)
            self._offsets.commit(offsets=[end], asynchronous=False)
            metrics.DEAD_LETTERS.inc(len(fresh))
            for record, error in fresh:
                log.warning(
                    "document dead-lettered",
                    topic=self._queue,
                    partition=partition,
                    offset=record.offset,
                    error=error,
                )

    def close(self) -> None:
        """Leave Kafka."""
        if "_offsets" in self.__dict__:
            self._offsets.close()

    def _sent(self, partition: int) -> int:
        where = TopicPartition(self._documents, partition)
        return max(0, self._offsets.committed([where], timeout=kafka.STALL_SECONDS)[0].offset)


def _letter(record: kafka.Record, error: str) -> kafka.Outgoing:
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stage="index",
        reason="invalid_document",
        exception=InvalidRecordError.__name__,
        message=error,
    )
    return kafka.Outgoing(record.key, record.value, letter.headers(record.headers))
