"""An index worker on real servers: documents, releases, and what a search must find."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from consumers import releases
from consumers.indexing.milvus import Milvus
from consumers.indexing.worker import IndexWorker
from retrail_runtime import kafka
from retrail_runtime.milvus import Build
from schemas.documents import Document, content_hash
from schemas.releases import Live, Model, Release
from schemas.settings import Settings
from schemas.topics import Topics
from serving.retriever import Hit, Retriever
from tests.tiny_model import write_tiny_model
from tests.waiting import eventually
from trainer.evaluate import frozen
from trainer.evaluate.evaluation import QueryMetrics
from trainer.evaluate.frozen import Grades
from trainer.model.encoder import Encoder
from trainer.registry.registry import GATE_FILE, Registry

WORDS = ["red", "green", "blue", "warm", "cold", "fast", "slow", "north", "river", "stone", "glass"]


def documents(count: int, *, start: int = 0) -> dict[str, str]:
    """Short different texts by id."""
    n = len(WORDS)
    return {
        f"d{i}": f"{WORDS[i % n]} {WORDS[i // n % n]} {WORDS[(i * 7 + 3) % n]} {i}"
        for i in range(start, start + count)
    }


def publish(settings: Settings, texts: Mapping[str, str | None]) -> None:
    """Write documents; ``None`` deletes."""
    kafka.send_all(kafka.producer(settings), Topics.of(settings).documents, records(texts))


def publish_into(settings: Settings, partition: int, texts: Mapping[str, str | None]) -> None:
    """As :func:`publish`, all into one partition."""
    producer, topic = kafka.producer(settings), Topics.of(settings).documents
    for key, value in records(texts):
        producer.produce(topic, key=key, value=value, partition=partition)
    assert producer.flush(30) == 0


def records(texts: Mapping[str, str | None]) -> Iterator[tuple[bytes, bytes | None]]:
    """Keys and values as they stand on the topic."""
    for name, text in texts.items():
        yield name.encode(), Document(doc_id=name, text=text).to_json() if text else None


def expected_hashes(texts: Mapping[str, str | None]) -> dict[str, str]:
    """What :func:`hashes` of a complete build is."""
    return {
        name: content_hash(Document(doc_id=name, text=text).embedded_text())
        for name, text in texts.items()
        if text
    }


def rows(milvus: Milvus, build: Build) -> dict[str, str]:
    """Content hash by document id of every row."""
    found: dict[str, str] = {}
    while page := milvus.page(build, max(found, default="")):
        found |= page
    return found


def hashes(settings: Settings, version: int) -> dict[str, str]:
    """Content hash by document id of the rows of a version; empty without a collection."""
    with closing(Milvus(settings)) as milvus:
        found = [build for build in milvus.builds() if build.version == version]
        return rows(milvus, found[0]) if found else {}


def aliased(settings: Settings) -> str | None:
    """The collection that the alias points at."""
    with closing(Milvus(settings)) as milvus:
        return milvus.aliased()


def serves(settings: Settings, version: int, timeout: float = 60) -> None:
    """Wait until the alias points at a version."""
    name = f"{settings.retriever}_v{version}"
    with closing(Milvus(settings)) as milvus:
        eventually(lambda: milvus.aliased() == name, timeout, f"alias on version {version}")


def release(settings: Settings, version: int, seed: int, folder: Path, **changes: Any) -> Release:
    """Publish a tiny random model as a release, not live yet; ``changes`` overrule its fields."""
    values: dict[str, Any] = {
        "version": version,
        "retriever": settings.retriever,
        "parent": version - 1 or None,
        "created_at": datetime.now(UTC),
        "decision": "ship",
        "reason": "a test",
    }
    if "model" not in changes:
        values["model"] = model(settings, version, seed, folder)
    made = Release(**(values | changes))
    releases.write_release(kafka.producer(settings), settings, made)
    return made


def model(settings: Settings, version: int, seed: int, folder: Path) -> Model:
    """Publish a tiny random model."""
    encoder = Encoder.load(write_tiny_model(folder / f"seed-{seed}", seed=seed), max_tokens=64)
    return Registry.of(settings).publish(settings.retriever, version, encoder.save)


def candidate(
    settings: Settings,
    version: int,
    folder: Path,
    relevant: Grades,
    pool: Iterable[str],
    **changes: Any,
) -> Release:
    """Release a candidate whose parent is version 1, with frozen queries and pool."""
    metrics = dict.fromkeys(relevant, QueryMetrics(1.0, 1.0, 1.0))
    results = frozen.rows(frozen.HELD_OUT, relevant, metrics, metrics)
    content = frozen.dump([results], set(pool), since_parent=False)
    made = model(settings, version, version, folder)
    Registry.of(settings).write_beside(made, GATE_FILE, content.decode())
    values: dict[str, Any] = {
        "model": made,
        "parent": 1,
        "candidate": True,
        "margin": 0.5,
        "results": hashlib.sha256(content).hexdigest(),
    }
    return release(settings, version, version, folder, **(values | changes))


def best(scores: Sequence[Mapping[str, float]], queries: Sequence[str]) -> Grades:
    """For each query the document with the highest score as the relevant one."""
    return {
        query: {max(row, key=lambda name: (row[name], name)): 1}
        for query, row in zip(queries, scores, strict=True)
    }


def models(settings: Settings, versions: Iterable[int], folder: Path) -> dict[int, Model]:
    """Models of the first release, which serves, and of further ones, which this makes."""
    build = Milvus(settings).builds()[0]
    first = Model(location=build.location, digest=build.digest)
    return {1: first} | {v: release(settings, v, v, folder).model for v in versions}


def make_live(settings: Settings, version: int) -> None:
    """Write ``live``, as an operator."""
    live = Live(version=version, why="a test", by="operator", changed_at=datetime.now(UTC))
    releases.write_live(kafka.producer(settings), settings, live)


def run_until_it_fails(settings: Settings) -> None:
    """An index worker in this thread; returns never, but raises what ended it."""
    stop = threading.Event()
    IndexWorker(settings, Milvus(settings, stop, vector_index="FLAT"), stop).run()


@contextmanager
def working(settings: Settings) -> Iterator[IndexWorker]:
    """An index worker in a thread; what it raised is raised at the end."""
    stop = threading.Event()
    worker = IndexWorker(settings, Milvus(settings, stop, vector_index="FLAT"), stop)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive(), "the worker did not stop"
    if failures:
        raise failures[0]


SLOW = """
import time
from consumers.indexing.embedder import Embedder
rows = Embedder.rows
def slow(*arguments):
    time.sleep(0.5)
    return rows(*arguments)
Embedder.rows = slow
"""


KILLED = """
import os, signal
from {where} import {what} as where
genuine = where.{call}
def kill(*arguments, **named):
    genuine(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
where.{call} = kill
"""


class WorkerProcess:
    """An index worker in its own process, to be killed; a slow one waits before it encodes.

    ``killed_after`` names a module, an object in it and its function, after whose first call the
    worker kills itself.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        slow: bool = False,
        killed_after: tuple[str, str, str] | None = None,
    ) -> None:
        where, what, call = killed_after or ("", "", "")
        killing = KILLED.format(where=where, what=what, call=call) if killed_after else ""
        given = settings.model_dump(exclude_defaults=True)
        environment = {f"RETRAIL_{name.upper()}": str(value) for name, value in given.items()}
        self._settings = settings
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                (SLOW if slow else "")
                + killing
                + "from consumers.indexing import worker; from schemas import settings; "
                "worker.run(settings.load())",
            ],
            cwd=Path(__file__).parent.parent,
            env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        )

    def metric(self, name: str) -> float:
        """Sum over the samples of a metric; 0 while there are none."""
        written = self._settings.data_dir / "run" / f"index-{self.process.pid}.metrics"
        if not written.exists():
            return 0.0
        page = httpx.get(f"http://127.0.0.1:{written.read_text()}/metrics").text
        lines = [line for line in page.splitlines() if re.match(rf"{name}(\{{| )", line)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def end(self, number: signal.Signals) -> int:
        """Send a signal; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


class Reference:
    """What an exact search gives: brute force over the documents with each version's model."""

    def __init__(self, settings: Settings, texts: Mapping[str, str]) -> None:
        self._settings = settings
        self._ids = list(texts)
        self._texts = list(texts.values())

    def scores(self, model: Model, queries: Sequence[str]) -> list[dict[str, float]]:
        """For each query the score of every document."""
        encoder = Registry.of(self._settings).load(model)
        products = encoder.encode_queries(queries) @ encoder.encode_documents(self._texts).T
        return [dict(zip(self._ids, row.tolist(), strict=True)) for row in products]


@dataclass
class Searches:
    """What threads that search all the time met.

    Attributes:
        versions: of the answers, in about their order.
        wrong: answers that are not those of brute force with the model that they name.
        failures: what searches raised; a thread ends with its first.
    """

    versions: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def answered_by(self, version: int) -> bool:
        """Whether the last answer is a version's; also once a search has failed."""
        return bool(self.failures) or self.versions[-1:] == [version]


@contextmanager
def searching(
    retriever: Retriever,
    queries: Sequence[str],
    expected: Mapping[int, Sequence[Mapping[str, float]]],
    threads: int = 3,
) -> Iterator[Searches]:
    """Search during the block; ``expected`` holds for each version the scores of each query."""
    found = Searches()
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                results = retriever.search_many(queries, k=10)
                version = results[0].retriever_version
                for result, scores in zip(results, expected[version], strict=True):
                    if not is_exact(result.hits, scores) or len(result.hits) != 10:
                        found.wrong.append(f"v{version}: {result.hits}")
                found.versions.append(version)
        except BaseException as error:
            found.failures.append(error)

    running = [threading.Thread(target=search) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield found
    finally:
        done.set()
        for thread in running:
            thread.join()


def is_exact(hits: Sequence[Hit], scores: Mapping[str, float]) -> bool:
    """Whether hits are the best documents with the right scores, best first."""
    best = sorted(scores.values(), reverse=True)[: len(hits)]
    return all(
        abs(hit.score - scores[hit.doc_id]) < 1e-4 and abs(hit.score - expected) < 1e-4
        for hit, expected in zip(hits, best, strict=True)
    )
