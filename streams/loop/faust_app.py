"""A Faust app that delivers its source topic to a worker in whole batches.

Faust does membership, assignment, rebalancing and the producer. A Faust agent handles 4,500 events
a second, because each event is a task switch; here the batches that its consumer fetches are
delivered whole (:mod:`streams.loop.faust_private` has all private names of Faust).
``docs/decisions/`` has the measurements.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from retrail_runtime import kafka
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES
from streams.loop.checkpoint import Committed
from streams.loop.credentials import credentials
from streams.loop.faust_private import (
    KafkaChannel,
    TransportApp,
    require_codecs,
    require_versions,
)
from streams.loop.partition import End, Handler

MAX_BATCH_BYTES = 256 * 1024
FETCH_BYTES = 1024 * 1024
REQUEST_SECONDS = 30.0
METADATA_MS = 5_000

# Faust's services log under the module of their class, which is this one.
logging.getLogger(__name__).setLevel(logging.WARNING)
# Thousands of lines while a topic is missing, which the worker logs once.
logging.getLogger("aiokafka.cluster").setLevel(logging.CRITICAL)


class BatchApp(TransportApp):
    """A Faust app that consumes one topic in batches."""

    def __init__(
        self, settings: Settings, group: str, data_dir: str, source: str, handler: Handler
    ):
        """Must be created within the running loop that it is to run on."""
        require_versions()
        require_codecs()
        self._settings = settings
        self._admin = kafka.admin(settings)
        self.source = source
        self.handler = handler
        session = settings.kafka_session_timeout
        super().__init__(
            group,
            broker=[f"kafka://{address}" for address in settings.kafka_bootstrap.split(",")],
            broker_credentials=credentials(settings),
            broker_session_timeout=session,
            broker_heartbeat_interval=min(3.0, session / 3),
            broker_request_timeout=max(REQUEST_SECONDS, session + 1),
            broker_rebalance_timeout=max(10.0, session),
            # The worker watches its own offsets, and may wait for hours, for example for a judging
            # server.
            broker_max_poll_interval=7 * 24 * 3600.0,
            consumer_auto_offset_reset="earliest",
            # So that the partitions of a recreated topic are found within seconds.
            consumer_metadata_max_age_ms=METADATA_MS,
            consumer_max_fetch_size=FETCH_BYTES,
            producer_linger=0.0,
            producer_max_batch_size=MAX_BATCH_BYTES,
            producer_max_request_size=MAX_EVENT_BYTES + 2 * ADDED_BYTES,
            producer_request_timeout=REQUEST_SECONDS,
            key_serializer="raw",
            value_serializer="raw",
            datadir=data_dir,
            stream_wait_empty=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
        )
        self.on_partitions_revoked.connect(self._on_revoked, weak=False)
        self.on_rebalance_complete.connect(self._on_assigned, weak=False)
        self.agent(self.topic(source), name="subscription")(_never)

    async def _on_revoked(self, *_: object, **__: object) -> None:
        await self.handler.revoked()

    async def _on_assigned(self, *_: object, **__: object) -> None:
        """Awaited right before Faust resumes the partitions, which is too early."""
        self.consumer.stop_flow()
        self.flow_control.suspend()
        ours = {tp.partition for tp in self.consumer.assignment() if tp.topic == self.source}
        await self.handler.assigned(frozenset(ours))

    async def seek(self, partition: int, offset: int) -> None:
        """Deliver the record at ``offset`` next, if the partition is still ours."""
        await self.consumer_thread.seek_all({TopicPartition(self.source, partition): offset})

    async def committed(self, partitions: frozenset[int]) -> dict[int, Committed]:
        """Offsets that the group committed; waits while the broker does not answer."""
        commits = dict.fromkeys(partitions, Committed(-1))
        found = await self.consumer_thread.committed(self._places(partitions))
        for place, at in found.items():
            log_id, _, metadata = at.metadata.partition(" ")
            commits[place.partition] = Committed(at.offset, metadata, log_id)
        return commits

    async def commit_offsets(self, commits: Mapping[int, Committed]) -> bool:
        """Commit offsets with metadata; False if the partitions are no longer ours.

        Raises:
            KafkaError: the broker refuses, and would again.
        """
        offsets = {
            TopicPartition(self.source, partition): OffsetAndMetadata(
                done.offset, f"{done.log_id} {done.metadata}"
            )
            for partition, done in commits.items()
        }
        try:
            await self.consumer_thread.run(lambda consumer: consumer.commit(offsets))
        except (CommitFailedError, IllegalStateError):
            return False
        return True

    async def beginnings(self, partitions: frozenset[int]) -> dict[int, int]:
        """First available offset of each partition."""
        return await self._offsets(lambda consumer: consumer.beginning_offsets, partitions)

    async def ends(self, partitions: frozenset[int]) -> dict[int, End]:
        """Last stable offset and high watermark of each partition."""
        stable = await self._offsets(lambda consumer: consumer.end_offsets, partitions)
        high = await self.consumer_thread.high_watermarks(self._places(partitions))
        return {
            partition: End(end, max(end, high.get(partition, 0)))
            for partition, end in stable.items()
        }

    async def topic_id(self) -> str:
        """The id of the source topic.

        Raises:
            BrokerUnavailableError: the broker does not answer.
            TopicMismatchError: there is no such topic now.
        """
        return await asyncio.to_thread(kafka.topic_id, self._admin, self.source)

    async def skipped(self, partition: int) -> set[int]:
        """Offsets at which an operator skips what cannot be decoded."""
        return await asyncio.to_thread(kafka.skipped, self._settings, self.source, partition)

    async def consumer_answers(self) -> None:
        """Returns when the consumer's thread answers, whatever the broker does.

        Raises:
            RestartRequiredError: the thread has ended.
        """
        await self.consumer_thread.run(lambda consumer: asyncio.sleep(0))

    async def _offsets(
        self, method: Callable[[Any], Any], partitions: frozenset[int]
    ) -> dict[int, int]:
        places = self._places(partitions)
        found = await self.consumer_thread.run(lambda consumer: method(consumer)(places))
        return {place.partition: offset for place, offset in found.items()}

    def _places(self, partitions: frozenset[int]) -> list[TopicPartition]:
        return [TopicPartition(self.source, partition) for partition in partitions]

    def output(self, topic: str, partition: int) -> KafkaChannel:
        """One partition of an output topic."""
        return KafkaChannel(self, topic, partition)


async def _never(stream: Any) -> None:
    """An agent, which Faust needs for a subscription; it never gets an event."""
    async for event in stream:
        raise AssertionError(f"an event reached the agent: {event!r}")
