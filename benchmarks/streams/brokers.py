"""A broker of the benchmarks' own, processes on it, and records in and out."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy import topics as topics_module
from deploy.kafka import KafkaBroker
from schemas.settings import Settings
from schemas.topics import Topics

ROOT = Path(__file__).parent.parent.parent
RIVALS = ROOT / "benchmarks" / "rivals"
PARTITIONS = 4

Figures = dict[str, float]


@dataclass(frozen=True)
class Testbed:
    """One broker and an installation on it."""

    settings: Settings
    folder: Path

    @property
    def topics(self) -> Topics:
        return Topics.of(self.settings)

    def environment(self, **more: str) -> dict[str, str]:
        settings = self.settings
        return os.environ | {
            "PYTHONPATH": str(ROOT),
            "BROKER": settings.kafka_bootstrap,
            "PARTITIONS": str(PARTITIONS),
            "STATE_DIR": str(self.folder / "state"),
            "RETRAIL_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "RETRAIL_TOPIC_PREFIX": settings.topic_prefix,
            "RETRAIL_DATA_DIR": str(settings.data_dir),
            **more,
        }

    def output_topic(self, name: str) -> str:
        """A topic whose records carry the broker's time."""
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_bootstrap})
        config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "4194304"}
        for future in admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)]).values():
            future.result(30)
        return name


@contextmanager
def testbed() -> Iterator[Testbed]:
    """A fresh broker and topics in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = KafkaBroker(folder / "kafka", folder / "kafka.log")
        broker.start()
        try:
            settings = Settings(
                kafka_bootstrap=broker.client_address,
                partitions=PARTITIONS,
                data_dir=folder / "data",
            )
            topics_module.ensure(settings)
            yield Testbed(settings, folder)
        finally:
            broker.stop()


@contextmanager
def process(
    command: list[str], env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is killed at the end."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def worker(role: str) -> list[str]:
    """Command of a worker."""
    return [sys.executable, "-m", "retrail_cli", "worker", role]


def write(topic: str, records: Iterator[tuple[bytes, bytes]], bootstrap: str) -> int:
    """Produce all, each partition in order even if a request is sent again; returns how many.

    Raises:
        RuntimeError: the broker did not take all.
    """
    acknowledged = 0

    def delivered(error: KafkaError | None, _: Message) -> None:
        nonlocal acknowledged
        acknowledged += error is None

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    count = 0
    for key, value in records:
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        if count % 1_000 == 0:
            producer.poll(0)
    producer.flush()
    if acknowledged < count:
        raise RuntimeError(f"{topic} took {acknowledged} of {count} records")
    return count


def write_small_batches(
    topic: str,
    records: Iterator[tuple[bytes, bytes]],
    bootstrap: str,
    size: int,
    *,
    transactions: bool,
) -> int:
    """Produce all in batches of ``size`` records, each of them a transaction or not; how many."""
    config = {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 0.1}
    config |= {"transactional.id": topic} if transactions else {"enable.idempotence": True}
    producer, count = Producer(config), 0
    if transactions:
        producer.init_transactions(30)
    for batch in iter(lambda: list(itertools.islice(records, size)), []):
        if transactions:
            producer.begin_transaction()
        for key, value in batch:
            producer.produce(topic, value, key)
        if transactions:
            producer.commit_transaction(30)
        elif producer.flush(30):
            raise RuntimeError(f"{topic} did not take a batch")
        count += len(batch)
    return count


def drain(topic: str, bootstrap: str, until: Callable[[int], bool], patience: float) -> list[int]:
    """Broker times (ms) of the records of a topic, read until ``until(count)``."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"drain-{topic}"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    times: list[int] = []
    deadline = time.monotonic() + patience
    while not until(len(times)) and time.monotonic() < deadline:
        times += [
            message.timestamp()[1]
            for message in consumer.consume(10_000, 0.2)
            if message.error() is None and message.key() is not None
        ]
    consumer.close()
    if not until(len(times)):
        raise RuntimeError(f"only {len(times)} records on {topic} after {patience:.0f} s")
    return sorted(times)


def rate(
    testbed: Testbed,
    name: str,
    commands: list[tuple[list[str], dict[str, str]]],
    target: str,
    inputs: int,
    outputs: int,
) -> float:
    """Inputs a second, from the first output's time on the broker to the last one's.

    The log must open with a whole trajectory: else the first output comes when a thousand others
    are nearly over, and a worker whose outputs come in bursts looks faster than it is.
    """
    log = testbed.folder / f"{name}.log"
    with all_of([process(command, testbed.environment(**env), log) for command, env in commands]):
        try:
            times = drain(target, testbed.settings.kafka_bootstrap, lambda n: n >= outputs, 300)
        except RuntimeError:
            sys.stderr.write(log.read_text()[-3_000:])
            raise
    found = inputs / ((times[-1] - times[0]) / 1000)
    print(f"  {name}: {found:,.0f} events/s", flush=True)
    return found


@contextmanager
def all_of(contexts: list[AbstractContextManager[Any]]) -> Iterator[None]:
    """Enter all, leave all."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield
