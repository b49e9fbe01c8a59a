"""How fast the stream workers are, beside others, in one run on one Apache Kafka.

    python -m benchmarks.streams                       everything (about 15 minutes on 2 cores)
    python -m benchmarks.streams --only fold memory    some of it
    python -m benchmarks.streams --events 50000        smaller

Absolute figures depend on the machine; quote the ratios. The quixstreams application runs in a
virtual environment of its own under the user's cache directory.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.stream_logs import interleaved, judged
from deploy import topics as topics_module
from deploy.broker import KafkaBroker
from schemas.settings import Settings
from schemas.topics import Topics
from streams.fold import Fold

HERE = Path(__file__).parent
PARTITIONS = 4
OPEN_AT_ONCE = 1_000
VERDICT_TEXT = (
    "The document says that the historian was born in that town and wrote three books about its "
    "castle, so this answers half of the question. Next I should look for the year of the second."
)

Figures = dict[str, Any]


# -- the fold alone -------------------------------------------------------------------------


def fold_alone(events: int) -> Figures:
    """Events a second through the fold, by how many trajectories are open."""
    figures: Figures = {}
    for open_at_once in (1_000, 10_000, 100_000):
        trajectories = max(open_at_once, events // 21)
        log = [value for _, value in judged(interleaved(trajectories, open_at_once))]
        fold, started = Fold(), time.perf_counter()
        for offset, value in enumerate(log):
            fold.apply(offset, 0, value)
        figures[f"{open_at_once:,} open, pairs made"] = len(log) / (time.perf_counter() - started)
        fold, started = Fold(), time.perf_counter()
        for offset, value in enumerate(log):
            fold.apply(offset, 0, value, silent=True)
        figures[f"{open_at_once:,} open, silent"] = len(log) / (time.perf_counter() - started)
    return figures


def memory(_: int) -> Figures:
    """Bytes for an open trajectory of 20 events; each count in a process of its own."""
    figures = {}
    for count in (10_000, 100_000):
        command = [sys.executable, "-m", "benchmarks.streams", "--measure-memory", str(count)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures[f"{count:,} open"] = float(output)
    return figures


def measure_memory(count: int) -> None:
    """Print the growth of this process a trajectory, in bytes."""
    fold = Fold()
    before = _resident_bytes()
    for offset, (_, value) in enumerate(judged(interleaved(count, count))):
        if offset >= count * 20:
            break
        fold.apply(offset, 0, value)
    assert fold.open_trajectories == count
    print((_resident_bytes() - before) / count)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# -- topic to topic -------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """One broker and an installation on it."""

    settings: Settings
    folder: Path

    @property
    def topics(self) -> Topics:
        return Topics.of(self.settings)

    def environment(self, **more: str) -> dict[str, str]:
        settings = self.settings
        return os.environ | {
            "PYTHONPATH": str(HERE.parent),
            "BROKER": settings.kafka_bootstrap,
            "PARTITIONS": str(PARTITIONS),
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
def bench() -> Iterator[Bench]:
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
            yield Bench(settings, folder)
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
    return [sys.executable, "-m", "retrail.cli", "worker", role]


def write(topic: str, records: Iterator[tuple[bytes, bytes]], bootstrap: str) -> int:
    """Produce all; returns how many."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
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
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        if count % 1_000 == 0:
            producer.poll(0)
    producer.flush()
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
    bench: Bench,
    name: str,
    commands: list[tuple[list[str], dict[str, str]]],
    target: str,
    inputs: int,
    outputs: int,
) -> float:
    """Inputs a second, from the first output's time on the broker to the last one's."""
    log = bench.folder / f"{name}.log"
    with all_of([process(command, bench.environment(**env), log) for command, env in commands]):
        try:
            times = drain(target, bench.settings.kafka_bootstrap, lambda n: n >= outputs, 300)
        except RuntimeError:
            sys.stderr.write(log.read_text()[-3_000:])
            raise
    return inputs / ((times[-1] - times[0]) / 1000)


@contextmanager
def all_of(contexts: list[AbstractContextManager[Any]]) -> Iterator[None]:
    """Enter all, leave all."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def throughput(events: int) -> Figures:
    """One miner from topic to topic, beside Faust, quixstreams and a bare loop; two beside one."""
    figures: Figures = {}
    trajectories = events // 21
    log = [value for _, value in judged(interleaved(trajectories, OPEN_AT_ONCE))]
    fold = Fold()
    pairs = sum(len(fold.apply(offset, 0, value)) for offset, value in enumerate(log))
    with bench() as b:
        source = b.topics.judged_events
        bootstrap = b.settings.kafka_bootstrap
        write(source, judged(interleaved(trajectories, OPEN_AT_ONCE)), bootstrap)

        def rival(name: str, python: str, script: str, outputs: int, *arguments: str) -> None:
            target = b.output_topic(f"{name}-out")
            env = {"SOURCE": source, "TARGET": target, "GROUP": f"bench-{name}"}
            command = [python, str(HERE / "rivals" / script), *arguments]
            figures[name] = rate(b, name, [(command, env)], target, len(log), outputs)

        faust_arguments = ("worker", "-l", "warn", "--without-web")
        rival(
            "faust-pass-through", sys.executable, "faust_passthrough.py", len(log), *faust_arguments
        )
        rival("quixstreams-stateful", _quixstreams(), "quix_stateful.py", trajectories)
        rival("bare-loop-same-miner", sys.executable, "bare_miner.py", pairs)
        for count in (1, 2):
            revised = b.settings.model_copy(update={"topic_prefix": f"m{count}_"})
            topics_module.ensure(revised)
            mine = Bench(revised, b.folder)
            write(
                mine.topics.judged_events,
                judged(interleaved(trajectories, OPEN_AT_ONCE)),
                bootstrap,
            )
            commands = [(worker("mine"), {}) for _ in range(count)]
            figures[f"miner, {count} worker{'s' * (count > 1)}"] = rate(
                mine, f"mine{count}", commands, mine.topics.labelled_pairs, len(log), pairs
            )
    base = figures["faust-pass-through"]
    return figures | {
        "miner / faust-pass-through": figures["miner, 1 worker"] / base,
        "miner / quixstreams-stateful": figures["miner, 1 worker"]
        / figures["quixstreams-stateful"],
        "two miners / one": figures["miner, 2 workers"] / figures["miner, 1 worker"],
    }


def judging(events: int) -> Figures:
    """One local judge from topic to topic, beside Faust's pass-through."""
    trajectories = events // 21
    with bench() as b:
        source, bootstrap = b.topics.trajectory_events, b.settings.kafka_bootstrap
        count = write(source, published(trajectories, OPEN_AT_ONCE), bootstrap)
        target = b.output_topic("pass-through-out")
        env = {"SOURCE": source, "TARGET": target, "GROUP": "bench-pass-through"}
        script = [sys.executable, str(HERE / "rivals" / "faust_passthrough.py")]
        command = [*script, "worker", "-l", "warn", "--without-web"]
        base = rate(b, "pass-through", [(command, env)], target, count, count)
        judge = rate(b, "judge", [(worker("judge"), {})], b.topics.judged_events, count, count)
    return {"faust-pass-through": base, "judge, 1 worker": judge, "ratio": judge / base}


def published(trajectories: int, open_at_once: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of events as agents publish them."""
    for event in interleaved(trajectories, open_at_once):
        yield event["trajectory_id"].encode(), as_published(event)


def as_published(event: dict[str, Any]) -> bytes:
    """An event before its judgement: with a text instead of a verdict."""
    event = {k: v for k, v in event.items() if k not in ("verdict", "judge", "judge_version")}
    if event["type"] == "reasoning":
        del event["tokens"]
        event["text"] = VERDICT_TEXT
    return json.dumps(event).encode()


# -- latency and recovery -------------------------------------------------------------------


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
            json.dumps(
                event
                | {"source_offset": offset + at, "source_time": 1_700_000_000_000 + offset + at}
            ).encode(),
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


def _quixstreams() -> str:
    """Python of a virtual environment with quixstreams."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "retrail" / "quixstreams-venv"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", "quixstreams"], check=True)
    return str(python)


SECTIONS: dict[str, Callable[[int], Figures]] = {
    "fold": fold_alone,
    "memory": memory,
    "throughput": throughput,
    "judge": judging,
    "latency": latency,
    "recovery": recovery,
}


def main() -> None:
    """Run the chosen sections, print and save their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--measure-memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        measure_memory(options.measure_memory)
        return
    figures: dict[str, Figures] = {}
    for name in options.only:
        print(f"\n{name}: {SECTIONS[name].__doc__}", flush=True)
        figures[name] = SECTIONS[name](options.events)
        for label, value in figures[name].items():
            print(f"  {label:<40} {value:>14,.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
