"""Which of the index workers leads: the owner of ``retriever-releases`` in group ``index``."""

from collections.abc import Sequence

import structlog
from confluent_kafka import Consumer, TopicPartition

from retrail_runtime import kafka
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)


class Leadership:
    """Membership in group ``index``; for one thread, which asks at least every few minutes."""

    def __init__(self, settings: Settings) -> None:
        self._held = False
        self._member = kafka.consumer(settings, settings.group("index"), heartbeat_interval_ms=500)
        self._member.subscribe(
            [Topics.of(settings).retriever_releases],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )

    def held(self) -> bool:
        """Whether this worker leads now."""
        kafka.ready(self._member, 0)
        return self._held

    def close(self) -> None:
        """Let another worker lead."""
        self._member.close()

    def _on_assign(self, member: Consumer, partitions: Sequence[TopicPartition]) -> None:
        if partitions:
            self._held = True
            log.info("leading the index workers")
            # Owning is all that matters: the records are read elsewhere.
            member.assign(list(partitions))
            member.pause(list(partitions))

    def _on_revoke(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        if partitions:
            self._held = False
