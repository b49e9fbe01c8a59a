"""Every private name of Faust and aiokafka that the workers use, and what they change.

- The consumer delivers whole batches to a :class:`streams.loop.partition.Handler`, no events.
- The position of a partition is the handler's, not the offset that Faust committed, and the flow
  is stopped until the position is set (Faust resumes partitions too early, which loses records).
- Positions are set in the consumer's own thread: Faust sets them from another one, between two
  statements of aiokafka's fetcher, which then ends with a KeyError (robinhood/aiokafka issue 19).
- Committed offsets are read with their metadata.
- Only committed records are read (Faust derives that from its processing guarantee). aiokafka drops
  control markers, aborted records and what it cannot decode: here they are delivered as
  :class:`streams.loop.partition.Hole`, so that their offsets are not missing.
- The producer is idempotent, and sends whole batches of one partition.

The exact versions are checked at start, see :func:`require_versions`; ``docs/decisions/`` has the
reasons.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar, cast

import faust
from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import WorkerThread

from retrail_runtime.kafka import Outgoing
from schemas.errors import ConfigurationError, RestartRequiredError
from streams.loop.partition import Handler, Hole

SUPPORTED = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}
CODECS = ("gzip", "snappy", "lz4", "zstd")
MAGIC = 2
"""The version of the batch format that aiokafka reads; it takes higher ones for this one."""

FETCH_WAIT_MS = 50
"""With Faust's 1,500 ms, idle partitions delay the next fetch from their broker."""

# Faust's services log under the module of their class, which is this one.
logging.getLogger(__name__).setLevel(logging.WARNING)

T = TypeVar("T")


def require_versions() -> None:
    """Fail before anything starts with other versions of Faust or aiokafka than these.

    Raises:
        ConfigurationError: naming the versions found and those to install.
    """
    found = {package: version(package) for package in SUPPORTED}
    if found != SUPPORTED:
        raise ConfigurationError(
            "The stream workers use private names of "
            + " and ".join(f"{package}=={number}" for package, number in SUPPORTED.items())
            + f"; installed are {', '.join(found.values())}. Install the supported versions: "
            "pip install " + " ".join(f"{name}=={number}" for name, number in SUPPORTED.items())
        )


def require_codecs() -> None:
    """Fail before anything starts if batches of some codec could not be read.

    Raises:
        ConfigurationError: naming the codecs and what to install.
    """
    unreadable = [name for name in CODECS if not _reads(name)]
    if unreadable:
        raise ConfigurationError(
            f"Batches that a producer compressed with {', '.join(unreadable)} cannot be read. "
            "Install what aiokafka needs for them: pip install 'aiokafka[snappy,lz4,zstd]"
            f"=={SUPPORTED['aiokafka']}'"
        )


def _reads(name: str) -> bool:
    text = b"one batch"
    encode, decode = getattr(codec, f"{name}_encode"), getattr(codec, f"{name}_decode")
    try:
        return bytes(decode(encode(text))) == text
    except Exception:
        # Without cramjam aiokafka uses None; another version of it may raise anything.
        return False


class FetchedPartition(fetcher.PartitionRecords):  # type: ignore[misc]
    """What was fetched of a partition: its records, and holes for offsets without one."""

    _records: Any
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        fetched = self._records
        while fetched.has_next():
            before, batch, given = self.next_fetch_offset, None, False
            try:
                batch = fetched.next_batch()
                if getattr(batch, "magic", 0) > MAGIC:
                    raise ValueError(f"unknown magic {batch.magic}")
                self._records = _OneBatch(batch)
                for record in super()._unpack_records():
                    given = True
                    yield record
            except Exception as error:
                yield self._fault(error, batch, fetched)
                return
            start = max(before, getattr(batch, "base_offset", before))
            if not given and (batch.is_control_batch or batch.is_transactional):
                yield Hole(start, self.next_fetch_offset)

    def _fault(self, error: Exception, batch: Any, fetched: Any) -> Hole:
        """The rest of a batch that cannot be decoded; it ends where the next one begins."""
        start = max(self.next_fetch_offset, getattr(batch, "base_offset", 0))
        following = fetched.next_batch() if batch is not None and fetched.has_next() else None
        end = getattr(following, "base_offset", getattr(batch, "next_offset", 0))
        self.next_fetch_offset = max(start + 1, end)
        return Hole(start, self.next_fetch_offset, fault=str(error) or repr(error))


class _OneBatch:
    """One batch, for a loop over many."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def has_next(self) -> bool:
        return self._batch is not None

    def next_batch(self) -> Any:
        batch, self._batch = self._batch, None
        return batch


class _DaemonThread(WorkerThread):
    """A consumer thread that does not keep the process alive if it hangs at its end."""

    def __init__(self, service: Any, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True


class BatchThread(driver.AIOKafkaConsumerThread):
    """The thread of aiokafka's consumer."""

    Worker = _DaemonThread

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        fetcher.PartitionRecords = FetchedPartition
        return consumer

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Await ``work`` on aiokafka's consumer, in its own thread.

        Raises:
            RestartRequiredError: the thread has ended.
        """

        if self._thread is None or not self._thread.is_alive():
            raise RestartRequiredError("Faust's consumer thread has ended.")

        async def job() -> T:
            return await work(self._ensure_consumer())

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(job(), self.thread_loop))

    async def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Offsets that the group committed, with metadata, of the partitions that have one."""

        found: dict[TopicPartition, OffsetAndMetadata]
        found = await self.run(lambda one: one._coordinator.fetch_committed_offsets(partitions))
        return found

    async def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[int, int]:
        """High watermarks of the last fetch, of the assigned partitions."""

        async def ask(consumer: Any) -> dict[int, int]:
            ours = [place for place in partitions if place in consumer.assignment()]
            return {place.partition: consumer.highwater(place) or 0 for place in ours}

        return await self.run(ask)

    async def seek_all(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Deliver these offsets next, for the partitions that are still assigned."""

        async def go(consumer: Any) -> None:
            for partition, offset in offsets.items():
                if partition in consumer.assignment():
                    consumer.seek(partition, offset)

        await self.run(go)


class _BatchConsumer(driver.Consumer):
    app: "TransportApp"

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> dict[TP, Any]:
        """Fetch partitions with capacity, and deliver the source's records in whole batches."""
        handler, source = self.app.handler, self.app.source
        wanted = {TP(source, partition) for partition in handler.with_capacity()}
        if active_partitions is not None:
            wanted &= active_partitions
        if not wanted:
            await asyncio.sleep(FETCH_WAIT_MS / 1000)
            return {}
        for partition, fetched in (await super()._getmany(wanted, timeout)).items():
            if self.flow_active:
                await handler.deliver(partition.partition, fetched)
        return {}

    async def perform_seek(self) -> None:
        """Seek to the handler's positions; the caller resumes the flow after this."""
        self.stop_flow()
        self.app.flow_control.suspend()
        wanted = self.app.handler.positions().items()
        await self.app.consumer_thread.seek_all(
            {TopicPartition(self.app.source, partition): offset for partition, offset in wanted}
        )

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust detects stalled agents here; the worker watches its offsets itself."""


class _IdempotentProducer(driver.Producer):
    def _settings_extra(self) -> dict[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class _BatchTransport(driver.Transport):
    Consumer = _BatchConsumer
    Producer = _IdempotentProducer


class TransportApp(faust.App):
    """A Faust app with these consumers and producers."""

    source: str
    handler: Handler

    def _new_transport(self) -> Any:
        return _BatchTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:
        return _BatchTransport(self.conf.broker_producer, self)

    @property
    def consumer_thread(self) -> BatchThread:
        """The thread of the consumer."""
        assert isinstance(self.consumer, _BatchConsumer)
        return cast(BatchThread, self.consumer._thread)

    @property
    def kafka_producer(self) -> Any:
        """aiokafka's producer."""
        return cast(_IdempotentProducer, self.producer)._ensure_producer()


class KafkaChannel:
    """A :class:`streams.loop.checkpoint.Channel` over Faust's producer."""

    def __init__(self, app: TransportApp, topic: str, partition: int) -> None:
        self._app = app
        self._topic = topic
        self._partition = partition

    async def send(self, records: Iterable[Outgoing]) -> int:
        """Send the first records, as many as one batch holds; returns how many.

        Raises:
            KafkaError: the broker rejects them, for instance because one is too large.
        """
        producer = self._app.kafka_producer
        batch, count = producer.create_batch(), 0
        for key, value, headers in records:
            if not batch.append(timestamp=None, key=key, value=value, headers=list(headers)):
                break
            count += 1
        # A closed batch does not linger.
        batch.close()
        await (await producer.send_batch(batch, self._topic, partition=self._partition))
        return count
