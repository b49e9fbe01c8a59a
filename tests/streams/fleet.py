"""What the worker tests share: trajectories, worker processes, and reading topics to their end."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from deploy import topics as topics_module
from schemas.events import Agent, Answer, Browse, End, Envelope, Hit, Other, Reasoning, Search
from schemas.judged import Judged, adapter
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from schemas.topics import Topics
from streams.judge.judging import judge_event, judge_named
from streams.mine.fold import Fold, Limits, Resume
from tests.waiting import eventually

START = """
import sys
from schemas.errors import RetrailError
from retrail_runtime.logging import configure
from schemas.settings import load
from streams import {role}_worker
configure()
{sabotage}
try:
    {role}_worker.run(load())
except RetrailError as error:
    print("ended:", error, file=sys.stderr)
    sys.exit(error.exit_status)
"""

REASONINGS = (
    "Great, the document says that it was founded in 1907. So we have the year.",
    "That document does not mention the founder. Let's search again.",
    "No useful information here.",
    "It is about the right company, and lists its owners; now find the director.",
    "",
)


def installation(kafka: str, folder: Path) -> Settings:
    """One of the test's own, without Milvus, whose topics exist."""
    settings = Settings(
        kafka_bootstrap=kafka,
        topic_prefix=f"t{secrets.token_hex(4)}_",
        data_dir=folder / "data",
        partitions=2,
        kafka_session_timeout=6.0,
    )
    topics_module.ensure(settings)
    return settings


def trajectory(name: str, needs: int = 3, hits: int = 6) -> list[Envelope]:
    """A trajectory in which all that mining knows happens, derived from its name."""
    draw = sum(name.encode())
    events: list[Envelope] = []

    def add(kind: type[Envelope], **fields: object) -> None:
        events.append(
            kind(
                event_id=f"{name}-{len(events)}",
                trajectory_id=name,
                seq=len(events),
                occurred_at=datetime(2026, 11, 1, tzinfo=UTC),
                agent=Agent(name="scout", model="model-7b"),
                **fields,
            )
        )

    for need in range(needs):
        docs = [f"d{(draw * 7 + need * 13 + rank * 3) % 97}" for rank in range(hits)]
        add(
            Search,
            query=f"{name} needs {need}",
            hits=tuple(Hit(doc_id=doc, rank=rank) for rank, doc in enumerate(docs, 1)),
        )
        for turn in range(1 + (draw + need) % 3):
            doc = docs[(draw + turn) % hits]
            add(Browse, doc_id=doc)
            text = REASONINGS[(draw + need + turn) % len(REASONINGS)]
            add(Reasoning, text=text and f"{text} That was {doc} for {name}.", about=doc)
        if (draw + need) % 4 == 0:
            add(Other, name="calculator")
    add(Answer, text="1907")
    add(End, outcome="correct" if draw % 2 else "incorrect")
    return events


def interleaved(trajectories: Iterable[Sequence[Envelope]], at_once: int = 10) -> list[Envelope]:
    """All events, each trajectory's in order, as if ``at_once`` agents worked side by side."""
    waiting = [list(reversed(events)) for events in reversed(list(trajectories))]
    active: list[list[Envelope]] = []
    mixed = []
    while waiting or active:
        while waiting and len(active) < at_once:
            active.append(waiting.pop())
        mixed += [queue.pop() for queue in active]
        active = [queue for queue in active if queue]
    return mixed


def some_events(count: int, name: str = "t") -> list[Envelope]:
    """The events of ``count`` trajectories, interleaved."""
    return interleaved(trajectory(f"{name}{number}") for number in range(count))


def publish(settings: Settings, events: Iterable[Envelope], patience: float = 30) -> None:
    """Put events on trajectory-events, acknowledged within ``patience`` seconds."""
    records = [(event.trajectory_id.encode(), event.to_json(), []) for event in events]
    send(settings, records, patience=patience)


def send(
    settings: Settings,
    records: Iterable[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]],
    topic: str | None = None,
    patience: float = 30,
) -> None:
    """Put raw records (key, value, headers) on a topic, by default trajectory-events."""
    topic = topic or Topics.of(settings).trajectory_events
    producer = Producer(
        settings.kafka(
            partitioner="murmur2_random",
            linger_ms=5,
            message_max_bytes=20_000_000,
            enable_idempotence=True,
        )
    )
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
        if event.type != "tick":
            assert message.key() == event.trajectory_id.encode()
            found[message.partition()].append(event)
    return found


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
            place.partition: Resume.parse(commit.offset, commit.metadata).acknowledged
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


def mined_offline(events: Iterable[Envelope], settings: Settings) -> dict[str, LabelledPair]:
    """What the same pure functions make of the events without a broker, by pair id."""

    async def mine() -> list[LabelledPair]:
        judge = judge_named(settings)
        fold = Fold(
            revision=settings.revision, profile=settings.profile, limits=Limits.of(settings)
        )
        pairs = []
        for offset, event in enumerate(events):
            found = await judge_event(event, judge, offset, 0)
            pairs += fold.apply(offset, 0, found.to_json())
        await judge.aclose()
        return pairs + fold.close_all()

    found: dict[str, LabelledPair] = {}
    for pair in asyncio.run(mine()):
        found.setdefault(pair.pair_id, pair.content())
    return found


def assert_same_pairs(settings: Settings, expected: dict[str, LabelledPair]) -> int:
    """Nothing lost, nothing added, every repeat equal; returns how many repeats there were."""
    found = pairs_of(settings)
    assert {pair.pair_id for pair in found} == set(expected)
    for pair in found:
        assert pair.content() == expected[pair.pair_id]
    return len(found) - len(expected)


@dataclass
class Worker:
    """One worker process."""

    role: str
    process: subprocess.Popen[bytes]
    log_file: Path
    data_dir: Path
    ended: bool = False

    @property
    def ports(self) -> list[int]:
        """Where it serves its page; empty before it does."""
        files = (self.data_dir / "run").glob(f"{self.role}-{self.process.pid}.metrics")
        return [int(text) for file in files if (text := file.read_text())]

    @property
    def log(self) -> str:
        """All that it said."""
        return self.log_file.read_text()

    @property
    def working(self) -> bool:
        """Whether it has handled records; those that a miner folds again do not count."""
        counter = {"judge": "retrail_judge_events_total", "mine": "retrail_mine_events_total"}[
            self.role
        ]
        try:
            return bool(self.ports) and self.sample(counter) > 0
        except OSError:
            return False

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages; nothing before it serves any.

        Raises:
            OSError: it does not answer.
        """
        [port] = self.ports
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels, as its page shows them now."""
        _, text = self.page("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        )

    def wait(self, seconds: float = 20) -> int:
        """Its exit status."""
        self.ended = True
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.role} goes on:\n{self.log[-3000:]}") from None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.ended = True
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def leave(self) -> None:
        """Ask it to end; asserts that it does so in good order, unless it was only starting."""
        working, status = self.working, self.stop()
        assert status == 0 or (status == -signal.SIGTERM and not working), self.log[-3000:]


class Fleet:
    """Starts workers of one installation."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.workers: list[Worker] = []
        self._folder = folder

    def start(self, role: str, sabotage: str = "", **variables: str) -> Worker:
        """A worker with the installation's settings; ``sabotage`` is Python run before it."""
        log_file = self._folder / f"{role}-{len(self.workers)}.log"
        shared = self.settings.model_dump(
            include={
                "kafka_bootstrap",
                "topic_prefix",
                "revision",
                "data_dir",
                "partitions",
                "kafka_session_timeout",
            }
        )
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RETRAIL_")
        }
        environment |= {f"RETRAIL_{name.upper()}": str(value) for name, value in shared.items()}
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", START.format(role=role, sabotage=sabotage)],
                env=environment | variables,
                stderr=log,
            )
        self.workers.append(Worker(role, process, log_file, self.settings.data_dir))
        return self.workers[-1]

    @property
    def living(self) -> list[Worker]:
        """The workers that run."""
        return [worker for worker in self.workers if worker.process.poll() is None]

    def finish(self) -> None:
        """Stop judges, let the miners come to the end of what these wrote, and stop them too.

        After this nothing more comes. Asserts that all end well.
        """
        self._stop(worker for worker in self.living if worker.role == "judge")
        judged = read(self.settings, Topics.of(self.settings).judged_events)
        ends = {message.partition(): message.offset() + 1 for message in judged}

        def all_mined() -> bool:
            mined = mined_up_to(self.settings)
            return all(mined.get(partition, 0) >= end for partition, end in ends.items())

        eventually(all_mined, 60, f"commits of the miners up to {ends}", interval=0.2)
        self._stop(self.living)

    def _stop(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            worker.leave()

    def kill_all(self) -> None:
        """Leave no process behind."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()

    def until_pairs(self, expected: dict[str, LabelledPair], seconds: float = 60) -> None:
        """Wait until every expected pair is on the topic."""

        def all_there() -> bool:
            for worker in self.workers:
                assert worker.ended or worker.process.poll() is None, worker.log[-3000:]
            return {pair.pair_id for pair in pairs_of(self.settings)} >= set(expected)

        eventually(all_there, seconds, f"all {len(expected)} pairs", interval=0.2)
