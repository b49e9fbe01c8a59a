"""How long a pair takes: from its closing event, and after a worker was killed."""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.streams.brokers import PARTITIONS, Figures, Testbed, process, testbed, worker, write
from benchmarks.streams.logs import as_published, interleaved, judged, judged_value, published

WARM_UP_SECONDS = 5


def latency(_: int, events_per_second: int = 1_000, seconds: int = 30) -> Figures:
    """From the closing event at the agent to its pairs, through judge and miner."""
    with (
        testbed() as b,
        process(worker("judge"), b.environment(), b.folder / "judge.log"),
        process(worker("mine"), b.environment(), b.folder / "mine.log"),
    ):
        for number in range(PARTITIONS * 2):
            _close_one(b, b.topics.trajectory_events, published, 10**7 + number)
        closed: dict[str, float] = {}
        delays: list[float] = []
        stop = threading.Event()
        reader = threading.Thread(target=_collect_delays, args=(b, closed, delays, stop))
        reader.start()
        try:
            expected = _publish_steadily(b, closed, events_per_second, seconds)
            deadline = time.monotonic() + 30
            while len(delays) < expected and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            stop.set()
            reader.join()
    delays.sort()
    return {
        "p50 ms": delays[len(delays) // 2] * 1000,
        "p99 ms": delays[int(len(delays) * 0.99)] * 1000,
        "max ms": delays[-1] * 1000,
        "closed trajectories": expected,
        "of them without a pair after 30 s": expected - len(delays),
    }


def _publish_steadily(
    b: Testbed, closed: dict[str, float], events_per_second: int, seconds: int
) -> int:
    """Publish at a fixed rate, noting when each trajectory was closed; returns how many were."""
    producer = Producer(
        {
            "bootstrap.servers": b.settings.kafka_bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "enable.idempotence": True,
        }
    )
    warm_up = WARM_UP_SECONDS * events_per_second
    total = warm_up + seconds * events_per_second
    started, noted = time.perf_counter(), 0
    for number, event in enumerate(interleaved(total // 21, 200)):
        wait = started + number / events_per_second - time.perf_counter()
        if wait > 0:
            producer.poll(0)
            time.sleep(wait)
        key = event["trajectory_id"]
        if event["type"] == "end" and number > warm_up:
            closed[key] = time.perf_counter()
            noted += 1
        producer.produce(b.topics.trajectory_events, as_published(event), key)
    producer.flush()
    return noted


def _collect_delays(
    b: Testbed, closed: dict[str, float], delays: list[float], stop: threading.Event
) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": b.settings.kafka_bootstrap,
            "group.id": "delays",
            "fetch.wait.max.ms": 5,
        }
    )
    topic = b.topics.labelled_pairs
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    while not stop.is_set():
        for message in consumer.consume(500, 0.005):
            since = closed.pop(message.key().decode(), None)
            if since is not None:
                delays.append(time.perf_counter() - since)
    consumer.close()


def recovery(_: int) -> Figures:
    """From kill -9 of the only miner to the next pair, by the number of events that it replays."""
    figures: Figures = {}
    for count in (0, 10_000, 100_000):
        with testbed() as b:
            settings = b.settings
            env = b.environment(RETRAIL_KAFKA_SESSION_TIMEOUT="6")
            open_events = _truncated(count)
            written = write(b.topics.judged_events, judged(open_events), settings.kafka_bootstrap)
            close = partial(_close_one, b, b.topics.judged_events)
            with process(worker("mine"), env, b.folder / "mine.log") as first:
                close(partial(_judged_from, written), 10**7)
                _await_commit(b)
                first.send_signal(signal.SIGKILL)
            killed = time.perf_counter()
            with process(worker("mine"), env, b.folder / "mine.log"):
                close(partial(_judged_from, written + 21), 10**7 + 1)
                figures[f"{count * 20:,} open events: seconds"] = time.perf_counter() - killed
    return figures


def _truncated(count: int) -> Iterator[dict[str, Any]]:
    for number, event in enumerate(interleaved(count, count) if count else iter(())):
        if number >= count * 20:
            return
        yield event


def _judged_from(offset: int, events: Iterator[dict[str, Any]]) -> Iterator[tuple[bytes, bytes]]:
    """Key and value as the judge writes them, with source offsets from ``offset`` on."""
    for at, event in enumerate(events, offset):
        yield event["trajectory_id"].encode(), judged_value(event, at)


def _await_commit(b: Testbed) -> None:
    """Wait until the miner has committed that the pairs of all records are acknowledged."""
    group, topic = b.settings.group("mine", revised=True), b.topics.judged_events
    consumer = Consumer({"bootstrap.servers": b.settings.kafka_bootstrap, "group.id": group})
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    ends = [consumer.get_watermark_offsets(partition, 10)[1] for partition in partitions]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = consumer.committed(partitions, 10)
        # Without open trajectories the offset itself is at the end.
        done = [max(tp.offset, _acknowledged(tp.metadata)) for tp in found]
        if all(at >= end for at, end in zip(done, ends, strict=True)):
            consumer.close()
            return
        time.sleep(0.05)
    raise RuntimeError((b.folder / "mine.log").read_text()[-3_000:])


def _acknowledged(metadata: str | None) -> int:
    # confluent-kafka 2.16 reads the metadata past its end, so only the start of what
    # streams.mine.fold.Resume.metadata writes is looked at: this offset.
    match = re.match(r"\S* \[(\d+),", metadata or "")
    return int(match[1]) if match else -1


Encode = Callable[[Iterator[dict[str, Any]]], Iterator[tuple[bytes, bytes]]]


def _close_one(b: Testbed, source: str, encode: Encode, number: int) -> None:
    """Publish a whole trajectory, and wait for its pairs."""
    consumer = Consumer({"bootstrap.servers": b.settings.kafka_bootstrap, "group.id": "close"})
    topic = b.topics.labelled_pairs
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    write(source, encode(interleaved(1, 1, first=number)), b.settings.kafka_bootstrap)
    name = f"trajectory-{number:08d}".encode()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        message = consumer.poll(0.05)
        if message is not None and message.error() is None and message.key().startswith(name):
            consumer.close()
            return
    logs = [log.read_text()[-3_000:] for log in sorted(b.folder.glob("*.log"))]
    raise RuntimeError("no pair came: " + "\n".join(logs))
