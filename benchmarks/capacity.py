"""Unit costs of this machine, and what 1,000, 100,000 and 10 million trajectories a day need.

    python -m benchmarks.capacity                        measures and calculates, about 5 minutes
    python -m benchmarks.capacity --output costs.json    keeps the costs
    python -m benchmarks.capacity --costs costs.json     only calculates

It starts Apache Kafka, Milvus Lite and workers of its own: one judge and one miner from topic to
topic, the default model over the documentation of Python's standard library, one index worker, one
trainer, and `retrail serve` under 16 callers. benchmarks/sizing.py has the calculation and what it
assumes of a trajectory.
"""

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil

from benchmarks import training
from benchmarks.sizing import Load, UnitCosts, table
from benchmarks.streams.brokers import Testbed, drain, process, testbed, worker, write
from benchmarks.streams.logs import judged, opened_by_a_whole_one, published
from deploy import topics as topics_module
from deploy.milvus import MilvusLite
from deploy.processes import free_ports
from retrail_runtime import kafka
from schemas.documents import encode
from simulation import stdlib_corpus
from streams.mine.fold import Fold
from trainer.model.encoder import Encoder
from trainer.model.location import MINILM

TRAJECTORIES = (1_000, 100_000, 10_000_000)
EVENTS = 100_000
OPEN_AT_ONCE = 1_000
TOKENS = 256
TEXTS = 512
PAIRS = 96
CALLERS = 16
SEARCH_SECONDS = 15.0
MB = 2**20

Costs = dict[str, float]


def streams(bed: Testbed) -> tuple[Costs, dict[str, float]]:
    """One judge and one miner from topic to topic: events a second, bytes, memory."""
    bootstrap, topics = bed.settings.kafka_bootstrap, bed.topics
    trajectories = EVENTS // 21
    log = [value for _, value in judged(opened_by_a_whole_one(trajectories, OPEN_AT_ONCE))]
    fold = Fold()
    pairs = sum(len(fold.apply(offset, 0, value)) for offset, value in enumerate(log))
    source = published(opened_by_a_whole_one(trajectories, OPEN_AT_ONCE))
    count = write(topics.trajectory_events, source, bootstrap)
    costs, memory = Costs(), {}
    costs["judge_events"], memory["judge"] = topic_to_topic(
        bed, "judge", topics.judged_events, count, count
    )
    costs["event_bytes"] = log_bytes(bed, topics.trajectory_events) / count
    costs["judged_bytes"] = log_bytes(bed, topics.judged_events) / count
    # The miner alone, on a log of its own: the judge's log has other verdicts.
    mining = Testbed(bed.settings.model_copy(update={"topic_prefix": "m_"}), bed.folder)
    topics_module.ensure(mining.settings)
    source = judged(opened_by_a_whole_one(trajectories, OPEN_AT_ONCE))
    write(mining.topics.judged_events, source, bootstrap)
    costs["mine_events"], memory["mine"] = topic_to_topic(
        mining, "mine", mining.topics.labelled_pairs, count, pairs
    )
    costs["pair_bytes"] = log_bytes(bed, mining.topics.labelled_pairs) / pairs
    command = [sys.executable, "-m", "benchmarks.streams", "--measure-memory", "10000"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    costs["open_trajectory_bytes"] = float(shown)
    with running(mining, "train") as child:
        path = mining.settings.data_dir / "train" / f"{mining.topics.labelled_pairs}.sqlite"
        until(lambda: rows(path, "pairs") >= pairs, "the trainer's copy of the pairs")
        memory["train, idle"] = resident(child)
    costs["pair_disk_bytes"] = copy_bytes(path) / pairs
    return costs, memory


def search(bed: Testbed, folder: Path) -> tuple[Costs, dict[str, float]]:
    """An index worker and `retrail serve` over real documents: searches a second, bytes, memory."""
    documents = stdlib_corpus.load().documents
    records = [encode(document) for document in documents]
    kafka.send_all(kafka.producer(bed.settings), bed.topics.documents, records)
    costs = {"document_bytes": log_bytes(bed, bed.topics.documents) / len(documents)}
    memory: dict[str, float] = {}
    milvus = MilvusLite(folder / "milvus", folder / "milvus.log")
    milvus.start()
    try:
        address = {"RETRAIL_MILVUS_URI": milvus.client_address}
        port = free_ports(1)[0]
        serve = [*worker("serve")[:-2], "serve", "--port", str(port)]
        with running(bed, "index", **address) as index, running(bed, "train", **address) as train:
            with process(serve, bed.environment(**address), folder / "serve.log") as server:
                costs["searches"] = searches_a_second(f"http://127.0.0.1:{port}")
                memory |= {"serve": resident(server), "index": resident(index)}
            path = bed.settings.data_dir / "train" / f"{bed.topics.documents}.sqlite"
            until(lambda: rows(path, "documents") >= len(documents), "the trainer's documents")
            memory["train, idle"] = resident(train)
        costs["document_disk_bytes"] = copy_bytes(path) / len(documents)
    finally:
        milvus.stop()
    stored = sum(file.stat().st_size for file in (folder / "milvus").rglob("*") if file.is_file())
    costs["index_disk_bytes"] = stored / len(documents)
    return costs, memory


def searches_a_second(url: str) -> float:
    """Searches by 16 callers, once the first collection serves."""
    queries = [need.text for need in stdlib_corpus.load().unseen]

    def answers() -> bool:
        try:
            answer = httpx.post(f"{url}/v1/search", json={"query": queries[0]}, timeout=60)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and bool(answer.json()["hits"])

    until(answers, "an answered search", seconds=300)
    over = time.monotonic() + SEARCH_SECONDS

    def call(number: int) -> int:
        count = 0
        with httpx.Client(timeout=60) as http:
            while time.monotonic() < over:
                query = queries[(number + CALLERS * count) % len(queries)]
                http.post(f"{url}/v1/search", json={"query": query}).raise_for_status()
                count += 1
        return count

    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as callers:
        done = sum(callers.map(call, range(CALLERS)))
    return done / (time.monotonic() - began)


def models(folder: Path) -> tuple[Costs, dict[str, float]]:
    """The default model: documents encoded and pairs trained a second, and a trainer's memory."""
    corpus = stdlib_corpus.load()
    texts = [document.embedded_text() for document in corpus.documents][:TEXTS]
    encoder = Encoder.load(MINILM, max_tokens=TOKENS, device="cpu", encodes_only=True)
    encoder.encode_documents(texts[:32])
    began = time.perf_counter()
    encoder.encode_documents(texts)
    costs = {"encoded_documents": len(texts) / (time.perf_counter() - began)}
    options = argparse.Namespace(pairs=PAIRS, held_out=1, documents=1_000, negatives=4)
    pairs = training.write_pairs(training.cut(corpus, options), folder / "pairs.jsonl", options)
    job = training.Job(
        model=str(training.locate(MINILM)),
        data=str(folder / "pairs.jsonl"),
        output=str(folder / "child"),
        max_tokens=TOKENS,
        negatives=options.negatives,
        batch=32,
        epochs=1,
        steps=-(-pairs // 32),
        learning_rate=5e-5,
        temperature=0.05,
        seed=0,
        threads=psutil.cpu_count(logical=True) or 1,
    )
    figures = training.run(Path(sys.executable), training.SCRIPTS[training.OURS], job, folder)
    costs["trained_pairs"] = figures["pairs"] / figures["seconds"]
    return costs, {"train": figures["peak_mb"]}


def measure() -> UnitCosts:
    """All unit costs, one after another."""
    costs, memory = Costs(), dict[str, float]()
    with testbed() as bed, tempfile.TemporaryDirectory() as name:
        for part in (
            lambda: streams(bed),
            lambda: search(bed, Path(name)),
            lambda: models(Path(name)),
        ):
            some, used = part()
            costs |= some
            memory |= used
            for label, value in (*some.items(), *used.items()):
                print(f"  {label:<24} {value:>12,.1f}", flush=True)
    return UnitCosts(**costs, memory_mb=memory)


def topic_to_topic(
    bed: Testbed, role: str, target: str, inputs: int, outputs: int
) -> tuple[float, float]:
    """Inputs a second, from the first output's time to the last one's, and megabytes at the end."""
    with running(bed, role) as child:
        times = drain(target, bed.settings.kafka_bootstrap, lambda n: n >= outputs, 300)
        used = resident(child)
    return inputs / ((times[-1] - times[0]) / 1000), used


@contextmanager
def running(bed: Testbed, role: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of an installation, killed at the end."""
    environment = bed.environment(**variables)
    with process(worker(role), environment, bed.folder / f"{role}.log") as child:
        yield child


def resident(child: "subprocess.Popen[bytes]") -> float:
    """Megabytes of a process."""
    return psutil.Process(child.pid).memory_info().rss / MB


def log_bytes(bed: Testbed, topic: str) -> int:
    """Bytes of a topic's segments."""
    folders = (bed.folder / "kafka" / "data").glob(f"{topic}-*")
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


def copy_bytes(path: Path) -> int:
    """Bytes of a local copy, with what SQLite has not merged into it yet."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def rows(path: Path, name: str) -> int:
    """Rows of a table of a local copy; 0 before there is one."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait for a condition.

    Raises:
        RuntimeError: it did not become true.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {what} within {seconds:.0f} s")
        time.sleep(0.5)


def main() -> None:
    """Measure, or read the costs; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000, help="in the index")
    parser.add_argument("--output", type=Path, help="file for the costs, as JSON")
    parser.add_argument("--costs", type=Path, help="costs of an earlier --output")
    options = parser.parse_args()
    costs = UnitCosts(**json.loads(options.costs.read_text())) if options.costs else measure()
    if options.output:
        options.output.write_text(json.dumps(asdict(costs), indent=2) + "\n")
    loads = [Load(trajectories=count, documents=options.documents) for count in TRAJECTORIES]
    print(f"\n{table(loads, costs)}")


if __name__ == "__main__":
    main()
