"""Whole batches from Faust's consumer, and every private name of Faust and aiokafka that we need.

Faust does membership, assignment, rebalancing and the producer. An agent of it handles 4.5 thousand
events a second, because each event is a task switch; the records that its consumer fetches are
whole batches, and :class:`_BatchConsumer` hands those over instead. Three more things are ours:

- the position of a partition is what :class:`Handler` says, not what Faust committed, and the flow
  is held until it has been set (Faust reopens partitions too early, which loses records);
- offsets are committed with metadata, and read back with it;
- outputs leave as batches, one a partition at a time, by an idempotent producer.

``docs/decisions/`` has the measurements. The names are checked at start, see
:func:`require_private_names`.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol, TypeVar, cast

import aiokafka
import faust
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import WorkerThread

from schemas.errors import CannotGoOn, ConfigurationError
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES
from streams.outbox import Batch, Headers, Output

SUPPORTED = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}
FETCH_WAIT_MS = 50
"""Faust's 1,500 ms hold the next fetch of a broker behind its idle partitions."""

MAX_BATCH_BYTES = 256 * 1024
FETCH_BYTES = 1024 * 1024
REQUEST_SECONDS = 30.0

# Faust's services log under the module that their class is in: ours, here.
logging.getLogger(__name__).setLevel(logging.WARNING)

T = TypeVar("T")

_PRIVATE_NAMES: dict[Any, tuple[str, ...]] = {
    driver.Consumer: ("_getmany", "_new_consumer_thread", "perform_seek", "verify_event_path"),
    driver.AIOKafkaConsumerThread: ("_create_worker_consumer", "_ensure_consumer", "Worker"),
    driver.Producer: ("_settings_extra", "_ensure_producer"),
    faust.App: ("_new_transport", "_new_producer_transport"),
    GroupCoordinator: ("fetch_committed_offsets", "commit_offsets"),
    aiokafka.AIOKafkaProducer: ("create_batch", "send_batch"),
}


def require_private_names() -> None:
    """Fail before anything starts if Faust or aiokafka is not as this file expects.

    Raises:
        ConfigurationError: naming what is missing and the versions that have it.
    """
    missing = [
        f"{owner.__module__}.{owner.__name__}.{name}"
        for owner, names in _PRIVATE_NAMES.items()
        for name in names
        if not hasattr(owner, name)
    ]
    if missing:
        raise _unsupported(missing)


def _unsupported(missing: Sequence[str]) -> ConfigurationError:
    found = ", ".join(f"{package} {version(package)}" for package in SUPPORTED)
    wanted = " ".join(f"{package}=={number}" for package, number in SUPPORTED.items())
    return ConfigurationError(
        f"The stream workers need {', '.join(missing)}, which the installed {found} do not have. "
        f"Install the supported versions: pip install {wanted}"
    )


class Record(Protocol):
    """What is read of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset and what was written beside it; offset -1: nothing was committed."""

    offset: int
    metadata: str = ""


class Handler(Protocol):
    """What a worker does with the partitions of its source topic."""

    async def assigned(self, partitions: frozenset[int]) -> None:
        """These are ours now; nothing is delivered before this returns."""

    async def revoked(self) -> None:
        """None are ours any more; they may be given away when this returns."""

    def positions(self) -> Mapping[int, int]:
        """Partition → offset of the record to deliver next."""

    def with_room(self) -> frozenset[int]:
        """Partitions for which more may be delivered now."""

    async def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Records of one partition, in order, at least one."""


class _DaemonThread(WorkerThread):
    """A consumer thread that hangs at its end does not keep the process alive."""

    def __init__(self, service: Any, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True


class _BatchThread(driver.AIOKafkaConsumerThread):
    Worker = _DaemonThread

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        for name in ("_fetch_max_wait_ms", "_coordinator", "_subscription"):
            if not hasattr(consumer, name):
                raise _unsupported([f"aiokafka.AIOKafkaConsumer.{name}"])
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do something with aiokafka's consumer, in its own thread.

        Raises:
            CannotGoOn: the thread has ended.
        """

        if self._thread is None or not self._thread.is_alive():
            raise CannotGoOn("Faust's consumer thread has ended.")

        async def job() -> T:
            return await work(self._ensure_consumer())

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(job(), self.thread_loop))


class _BatchConsumer(driver.Consumer):
    app: "BatchApp"

    def _new_consumer_thread(self) -> _BatchThread:
        return _BatchThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> dict[TP, Any]:
        """Fetch where there is room, and hand over the source's records in whole batches."""
        handler, source = self.app.handler, self.app.source
        wanted = {TP(source, partition) for partition in handler.with_room()}
        if active_partitions is not None:
            wanted &= active_partitions
        if not wanted:
            await asyncio.sleep(FETCH_WAIT_MS / 1000)
            return {}
        for partition, records in (await super()._getmany(wanted, timeout)).items():
            if self.flow_active:
                await handler.deliver(partition.partition, records)
        return {}

    async def perform_seek(self) -> None:
        """Go to where the handler wants to read; the caller lets the flow go on after this."""
        self.stop_flow()
        self.app.flow_control.suspend()
        assignment = self.assignment()
        for partition, offset in self.app.handler.positions().items():
            if TP(self.app.source, partition) in assignment:
                self._thread.seek(TopicPartition(self.app.source, partition), offset)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust looks for stalled agents here; the worker watches its offsets itself."""


class _IdempotentProducer(driver.Producer):
    def _settings_extra(self) -> dict[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class _BatchTransport(driver.Transport):
    Consumer = _BatchConsumer
    Producer = _IdempotentProducer


class BatchApp(faust.App):
    """A Faust app that consumes one topic in batches."""

    def __init__(
        self, settings: Settings, group: str, data_dir: str, source: str, handler: Handler
    ):
        """Must be created within the running loop that it is to run on."""
        require_private_names()
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
            # Whether the worker still moves is watched by the worker, which may rightly wait for
            # hours, for instance for a judging server.
            broker_max_poll_interval=7 * 24 * 3600.0,
            consumer_auto_offset_reset="earliest",
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

    def _new_transport(self) -> Any:
        return _BatchTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:
        return _BatchTransport(self.conf.broker_producer, self)

    async def _on_revoked(self, *_: object, **__: object) -> None:
        await self.handler.revoked()

    async def _on_assigned(self, *_: object, **__: object) -> None:
        """Sent, and awaited, right before Faust reopens the partitions: too early for a flow."""
        self.consumer.stop_flow()
        self.flow_control.suspend()
        ours = {tp.partition for tp in self.consumer.assignment() if tp.topic == self.source}
        await self.handler.assigned(frozenset(ours))

    def seek(self, partition: int, offset: int) -> None:
        """Deliver the record at ``offset`` next."""
        self._consumer_thread.seek(TopicPartition(self.source, partition), offset)

    async def committed(self, partitions: frozenset[int]) -> dict[int, Committed]:
        """Offset and metadata that the group committed; waits while the broker is away."""
        wanted = [TopicPartition(self.source, partition) for partition in partitions]

        async def ask(consumer: Any) -> Any:
            return await consumer._coordinator.fetch_committed_offsets(wanted)

        found = await self._in_consumer(ask)
        return {
            tp.partition: Committed(found[tp].offset, found[tp].metadata or "")
            if tp in found
            else Committed(-1)
            for tp in wanted
        }

    async def commit_offsets(self, commits: Mapping[int, Committed]) -> bool:
        """Commit offsets with metadata; False if the partitions are no longer ours.

        Raises:
            KafkaError: the broker refuses, and would again.
        """
        offsets = {
            TopicPartition(self.source, partition): OffsetAndMetadata(done.offset, done.metadata)
            for partition, done in commits.items()
        }

        async def send(consumer: Any) -> None:
            await consumer.commit(offsets)

        try:
            await self._in_consumer(send)
        except (CommitFailedError, IllegalStateError):
            return False
        return True

    async def beginnings(self, partitions: frozenset[int]) -> dict[int, int]:
        """First offset that each partition still has."""
        return await self._offsets("beginning_offsets", partitions)

    async def ends(self, partitions: frozenset[int]) -> dict[int, int]:
        """Offset that the next record of each partition will get."""
        return await self._offsets("end_offsets", partitions)

    async def consumer_answers(self) -> None:
        """Returns when the consumer's thread, whatever the broker does, takes its turn.

        Raises:
            CannotGoOn: the thread has ended.
        """

        async def nothing(consumer: Any) -> None:
            return None

        await self._in_consumer(nothing)

    async def _offsets(self, question: str, partitions: frozenset[int]) -> dict[int, int]:
        wanted = [TopicPartition(self.source, partition) for partition in partitions]

        async def ask(consumer: Any) -> Any:
            return await getattr(consumer, question)(wanted)

        return {tp.partition: offset for tp, offset in (await self._in_consumer(ask)).items()}

    async def _in_consumer(self, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self._consumer_thread.run(work)

    @property
    def _consumer_thread(self) -> _BatchThread:
        assert isinstance(self.consumer, _BatchConsumer)
        return cast(_BatchThread, self.consumer._thread)

    def output(self, topic: str, partition: int) -> "KafkaChannel":
        """One partition of an output topic."""
        return KafkaChannel(self, topic, partition)


async def _never(stream: Any) -> None:
    """An agent keeps the subscription; batches never become events."""
    async for event in stream:
        raise AssertionError(f"an event reached the agent: {event!r}")


class KafkaBatch:
    """Records for one partition, in aiokafka's own format."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def append(self, output: Output) -> bool:
        """Whether the record still fitted in; the first one always does."""
        added = self.builder.append(
            timestamp=None, key=output.key, value=output.value, headers=list(output.headers)
        )
        return added is not None


class KafkaChannel:
    """A :class:`streams.outbox.Channel` over Faust's producer."""

    def __init__(self, app: BatchApp, topic: str, partition: int) -> None:
        self._app = app
        self._topic = topic
        self._partition = partition

    def new_batch(self) -> KafkaBatch:
        """An empty batch."""
        return KafkaBatch(self._producer.create_batch())

    async def send(self, batch: Batch) -> None:
        """Returns when every in-sync replica has the batch.

        Raises:
            KafkaError: it never will be there, for instance because it is too large.
        """
        assert isinstance(batch, KafkaBatch)
        # A closed batch does not linger.
        batch.builder.close()
        producer = self._producer
        await (await producer.send_batch(batch.builder, self._topic, partition=self._partition))

    @property
    def _producer(self) -> Any:
        return cast(_IdempotentProducer, self._app.producer)._ensure_producer()


def credentials(settings: Settings) -> Any:
    """How Faust proves who it is; None without security.

    Raises:
        ConfigurationError: a certificate or key cannot be read.
    """
    protocol = settings.kafka_security_protocol
    context = _ssl_context(settings) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username or "",
            password=password.get_secret_value() if password else "",
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile is not None:
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The files of RETRAIL_KAFKA_SSL_CAFILE, _CERTFILE and _KEYFILE cannot be used: {error}"
        ) from error
    return context
