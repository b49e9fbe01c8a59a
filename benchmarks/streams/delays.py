"""How long a pair takes: from its closing event, and after a worker was killed."""

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.streams.brokers import PARTITIONS, Bench, Figures, bench, process, worker, write
from benchmarks.streams.logs import as_published, interleaved, judged


def latency(_: int, events_per_second: int = 1_000, seconds: int = 30) -> Figures:
    """From the closing event at the agent to its pairs, through judge and miner."""
    with (
        bench() as b,
        process(worker("judge"), b.environment(), b.folder / "judge.log"),
        process(worker("mine"), b.environment(), b.folder / "mine.log"),
    ):
        closed: dict[str, float] = {}
        delays: list[float] = []
        stop = threading.Event()
        reader = threading.Thread(target=_collect_delays, args=(b, closed, delays, stop))
        reader.start()
        producer = Producer(
            {
                "bootstrap.servers": b.settings.kafka_bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "enable.idempotence": True,
            }
        )
        warm_up = 5 * events_per_second
        total = warm_up + seconds * events_per_second
        started = time.perf_counter() + 8.0
        for number, event in enumerate(interleaved(total // 21, 200)):
            wait = started + number / events_per_second - time.perf_counter()
            if wait > 0:
                producer.poll(0)
                time.sleep(wait)
            key = event["trajectory_id"]
            if event["type"] == "end" and number > warm_up:
                closed[key] = time.perf_counter()
            producer.produce(b.topics.trajectory_events, as_published(event), key)
        producer.flush()
        time.sleep(2.0)
        stop.set()
        reader.join()
    delays.sort()
    return {
        "p50 ms": delays[len(delays) // 2] * 1000,
        "p99 ms": delays[int(len(delays) * 0.99)] * 1000,
        "max ms": delays[-1] * 1000,
        "closed trajectories": len(delays),
    }


def _collect_delays(
    b: Bench, closed: dict[str, float], delays: list[float], stop: threading.Event
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
    """From kill -9 of the only miner to the next pair, by how many events are folded again."""
    figures: Figures = {}
    for count in (0, 10_000, 100_000):
        with bench() as b:
            settings = b.settings
            env = b.environment(RETRAIL_KAFKA_SESSION_TIMEOUT="6")
            open_events = _truncated(count)
            written = write(b.topics.judged_events, judged(open_events), settings.kafka_bootstrap)
            with process(worker("mine"), env, b.folder / "mine.log") as first:
                _close_one(b, written, 10**7)
                time.sleep(2.5)
                first.send_signal(signal.SIGKILL)
            killed = time.perf_counter()
            with process(worker("mine"), env, b.folder / "mine.log"):
                _close_one(b, written + 21, 10**7 + 1)
                figures[f"{count * 20:,} open events: seconds"] = time.perf_counter() - killed
    return figures


def _truncated(count: int) -> Iterator[dict[str, Any]]:
    for number, event in enumerate(interleaved(count, count) if count else iter(())):
        if number >= count * 20:
            return
        yield event


def _close_one(b: Bench, offset: int, number: int) -> None:
    """Publish a whole trajectory, and wait for its pairs."""
    consumer = Consumer({"bootstrap.servers": b.settings.kafka_bootstrap, "group.id": "close"})
    topic = b.topics.labelled_pairs
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    events = (
        (
            event["trajectory_id"].encode(),
            orjson.dumps(
                event
                | {"source_offset": offset + at, "source_time": 1_700_000_000_000 + offset + at}
            ),
        )
        for at, event in enumerate(interleaved(1, 1, first=number))
    )
    write(b.topics.judged_events, events, b.settings.kafka_bootstrap)
    name = f"trajectory-{number:08d}".encode()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        message = consumer.poll(0.05)
        if message is not None and message.error() is None and message.key().startswith(name):
            consumer.close()
            return
    raise RuntimeError((b.folder / "mine.log").read_text()[-3_000:])
