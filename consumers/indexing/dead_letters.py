"""Records of ``documents`` that are no document go to ``documents.dlq``, once.

Every build reads the topic from its start, and would set the same records aside again. So the
offsets up to which that has been done are committed under a group of their own.
"""

from collections.abc import Iterable
from functools import cached_property

import structlog
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from consumers.indexing import index_metrics as metrics
from consumers.indexing.documents import Poison
from retrail_runtime import kafka
from schemas.errors import RestartRequiredError
from schemas.headers import DeadLetter
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

TIMEOUT = 30.0


class DeadLetters:
    """Sets records aside; for one thread. Connects when there is something to send."""

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

    def send(self, poisoned: Iterable[tuple[kafka.Record, Poison]]) -> None:
        """Set aside what no build has set aside before; returns once all is acknowledged.

        Raises:
            DeliveryError: Kafka did not take one.
            RestartRequiredError: Kafka did not answer.
        """
        by_partition: dict[int, list[tuple[kafka.Record, Poison]]] = {}
        for record, poison in poisoned:
            by_partition.setdefault(record.partition, []).append((record, poison))
        for partition, letters in by_partition.items():
            done = self._done(partition)
            for record, poison in letters:
                if record.offset >= done:
                    self._send(record, poison)
            self._mark(partition, max(done, letters[-1][0].offset + 1))

    def close(self) -> None:
        """Leave Kafka."""
        if "_offsets" in self.__dict__:
            self._offsets.close()

    def _send(self, record: kafka.Record, poison: Poison) -> None:
        letter = DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            stage="index",
            reason="invalid_document",
            exception=poison.exception,
            message=poison.message,
        )
        kafka.publish_and_wait(
            self._producer,
            self._queue,
            key=record.key,
            value=record.value,
            headers=letter.headers(record.headers),
        )
        metrics.DEAD_LETTERS.inc()
        log.warning(
            "document set aside",
            topic=self._queue,
            partition=record.partition,
            offset=record.offset,
            error=poison.message,
        )

    def _done(self, partition: int) -> int:
        where = TopicPartition(self._documents, partition)
        try:
            return max(0, self._offsets.committed([where], timeout=TIMEOUT)[0].offset)
        except KafkaException as error:
            raise RestartRequiredError(
                f"Kafka does not tell what was dead-lettered: {error}"
            ) from error

    def _mark(self, partition: int, offset: int) -> None:
        where = TopicPartition(self._documents, partition, offset)
        try:
            self._offsets.commit(offsets=[where], asynchronous=False)
        except KafkaException as error:
            raise RestartRequiredError(
                f"Kafka does not take what was dead-lettered: {error}"
            ) from error
