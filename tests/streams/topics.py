"""Records of the stream topics: written, read to the end, and compared."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from schemas.events import Envelope
from schemas.judged import Judged, adapter
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from schemas.topics import Topics
from streams.mine.fold import Fold, Resume
from streams.mine.trajectories import Limits


def publish(
    settings: Settings, events: Iterable[Envelope], patience: float = 30, **options: object
) -> None:
    """Put events on trajectory-events, acknowledged within ``patience`` seconds."""
    records = [(event.trajectory_id.encode(), event.to_json(), []) for event in events]
    send(settings, records, patience=patience, **options)


def send(
    settings: Settings,
    records: Iterable[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]],
    topic: str | None = None,
    patience: float = 30,
    **options: object,
) -> None:
    """Put raw records (key, value, headers) on a topic, by default trajectory-events.

    ``options`` are the producer's, dots as underscores.
    """
    topic = topic or Topics.of(settings).trajectory_events
    ours = {
        "partitioner": "murmur2_random",
        "linger_ms": 5,
        "message_max_bytes": 20_000_000,
        "enable_idempotence": True,
    }
    producer = Producer(settings.kafka(**(ours | options)))
    failures = []
    for key, value, headers in records:
        producer.produce(
            topic,
            value,
            key,
            headers=headers,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(patience) == 0
    assert not failures


class Transactions:
    """A producer that writes events to trajectory-events in transactions."""

    def __init__(self, settings: Settings, name: str, **options: object) -> None:
        self._topic = Topics.of(settings).trajectory_events
        ours = {"partitioner": "murmur2_random", "transactional_id": name}
        self.producer = Producer(settings.kafka(**(ours | options)))
        self.producer.init_transactions(30)

    def begin(self, events: Iterable[Envelope]) -> None:
        """Write events into a new transaction, and have them on the log."""
        self.producer.begin_transaction()
        for event in events:
            self.producer.produce(self._topic, event.to_json(), event.trajectory_id.encode())
        assert self.producer.flush(30) == 0

    def commit(self, events: Iterable[Envelope]) -> None:
        """One transaction of these events."""
        self.begin(events)
        self.producer.commit_transaction(30)

    def abort(self, events: Iterable[Envelope]) -> None:
        """One transaction of these events that is aborted."""
        self.begin(events)
        self.producer.abort_transaction(30)


def read(settings: Settings, topic: str) -> list[Message]:
    """What is on a topic now, partition by partition."""
    consumer = Consumer(
        settings.kafka(
            group_id="reader", enable_partition_eof=True, fetch_message_max_bytes=20_000_000
        )
    )
    partitions = list(consumer.list_topics(topic, 10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found: dict[int, list[Message]] = defaultdict(list)
    ended: set[int] = set()
    while len(ended) < len(partitions):
        for message in consumer.consume(1000, 0.2):
            if message.error():
                ended.add(message.partition())
            else:
                found[message.partition()].append(message)
    consumer.close()
    return [message for partition in partitions for message in found[partition]]


def pairs_of(settings: Settings) -> list[LabelledPair]:
    """Every labelled pair on the topic, repeats included."""
    messages = read(settings, Topics.of(settings).labelled_pairs)
    return [LabelledPair.model_validate_json(message.value()) for message in messages]


def judged_of(settings: Settings) -> dict[int, list[Judged]]:
    """Judged events by partition, without ticks."""
    found: dict[int, list[Judged]] = defaultdict(list)
    for message in read(settings, Topics.of(settings).judged_events):
        event = adapter.validate_json(message.value())
        if event.type not in ("tick", "skipped"):
            assert message.key() == event.trajectory_id.encode()
            found[message.partition()].append(event)
    return found


def ticks_of(settings: Settings) -> dict[int, int]:
    """How many ticks are on each partition of judged-events that has some."""
    messages = read(settings, Topics.of(settings).judged_events)
    return Counter(
        message.partition() for message in messages if b'"type":"tick"' in message.value()
    )


def assert_judged_completely(settings: Settings) -> None:
    """Every valid source record has its judged event, first appearances in the source's order."""
    judged = judged_of(settings)
    source = read(settings, Topics.of(settings).trajectory_events)
    for partition in range(settings.partitions):
        seen, last = [], -1
        for event in judged.get(partition, []):
            if event.source_offset > last:
                seen.append((event.source_offset, event.event_id, event.source_time))
                last = event.source_offset
        assert seen == [
            (message.offset(), json.loads(message.value())["event_id"], message.timestamp()[1])
            for message in source
            if message.partition() == partition
        ]


def mined_up_to(settings: Settings) -> dict[int, int]:
    """Partition of judged-events → offset up to which the miners committed all pairs."""

    async def ask() -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
        await admin.start()
        try:
            group = settings.group("mine", revised=True)
            found = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        return {
            place.partition: Resume.parse(
                commit.offset, commit.metadata.partition(" ")[2]
            ).acknowledged
            for place, commit in found.items()
        }

    return asyncio.run(ask())


def judged_offline(settings: Settings) -> dict[str, LabelledPair]:
    """A fold done here over the judged events as they stand on the log, by pair id."""
    found: dict[str, LabelledPair] = {}
    messages = read(settings, Topics.of(settings).judged_events)
    for partition in range(settings.partitions):
        fold = Fold(limits=Limits.of(settings))
        for message in messages:
            if message.partition() == partition:
                for pair in fold.apply(message.offset(), message.timestamp()[1], message.value()):
                    found.setdefault(pair.pair_id, pair.content())
    return found


def assert_same_pairs(settings: Settings, expected: dict[str, LabelledPair]) -> int:
    """Nothing lost, nothing added, every repeat equal; returns how many repeats there were."""
    found = pairs_of(settings)
    assert {pair.pair_id for pair in found} == set(expected)
    for pair in found:
        assert pair.content() == expected[pair.pair_id]
    return len(found) - len(expected)
