"""Kafka, Milvus Lite and index workers of the benchmark's own, and releases to build."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import TopicPartition
from pymilvus import MilvusClient

from benchmarks.index import corpus
from consumers import releases
from consumers.indexing.plan import Assignment, group
from deploy import topics as topics_module
from deploy.kafka import KafkaBroker
from deploy.milvus import MilvusLite
from deploy.processes import Child
from retrail_runtime import kafka, milvus, search
from retrail_runtime.milvus import Build, collection_name
from retrail_runtime.retry import Deadline
from schemas.errors import NoIndexError
from schemas.releases import Live, Release
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry

ROOT = Path(__file__).parent.parent.parent
BUILD_SECONDS = 7200.0
"""Seconds that a build may take; on two cores one of 1,000,000 documents takes about an hour."""
PROGRESS_SECONDS = 10.0
"""Between two lines about the progress of a build."""

Figures = dict[str, float]


@dataclass
class World:
    """An installation with ``count`` documents on their topic."""

    settings: Settings
    folder: Path
    count: int
    version: int = 1
    workers: "list[Worker]" = field(default_factory=list)

    def release(self) -> int:
        """Publish another model as the next release, not live yet; returns its version."""
        self.version += 1
        registry = Registry.of(self.settings)
        encoder = corpus.model(self.version)
        release = Release(
            version=self.version,
            retriever=self.settings.retriever,
            parent=self.version - 1,
            model=registry.publish(self.settings.retriever, self.version, encoder.save),
            created_at=datetime.now(UTC),
            decision="ship",
            reason="a benchmark",
        )
        releases.write_release(kafka.producer(self.settings), self.settings, release)
        return self.version

    def encoder(self, version: int) -> Encoder:
        """The model of a version."""
        registry = Registry.of(self.settings)
        found = registry.published(self.settings.retriever, version)
        assert found is not None
        return registry.load(found)

    def make_live(self, version: int) -> None:
        """Write ``live``: the workers build the version, unless they have it, and swap it in."""
        live = Live(version=version, why="a benchmark", by="operator", changed_at=datetime.now(UTC))
        releases.write_live(kafka.producer(self.settings), self.settings, live)

    def await_live(self) -> None:
        """Return once a release is live."""
        self.wait(lambda: releases.read(self.settings).live is not None)

    def await_alias(self, version: int) -> None:
        """Return once searches find this version."""
        with connected(self.settings) as client:
            self.wait(lambda: _aliased(client, self.settings) == version)

    def wait(self, condition: Callable[[], bool], every: float = 0.05) -> None:
        """Return once ``condition`` holds.

        Raises:
            RuntimeError: a worker ended, or it took longer than :data:`BUILD_SECONDS`.
        """
        deadline = time.monotonic() + BUILD_SECONDS
        while not condition():
            for worker in self.workers:
                worker.must_run()
            if time.monotonic() > deadline:
                raise RuntimeError(f"not done after {BUILD_SECONDS:.0f} s; see {self.folder}")
            time.sleep(every)

    def start_worker(self) -> "Worker":
        """One more index worker."""
        worker = Worker(self.settings, self.folder / f"index-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def await_rows(self, version: int) -> list[tuple[float, int]]:
        """Return once the workers have written and committed every row of a version.

        Writes the progress to standard error.

        Returns:
            When how many rows were there, at each change. Asked of Kafka, so that no worker spends
            time on the answer.
        """
        marks: list[tuple[float, int]] = []
        shown_at = time.perf_counter()
        with self._rows_written(version) as written:

            def complete() -> bool:
                nonlocal shown_at
                rows, now = written(), time.perf_counter()
                if rows and (not marks or rows > marks[-1][1]):
                    marks.append((now, rows))
                if now - shown_at >= PROGRESS_SECONDS:
                    shown_at = now
                    print(f"  … {rows:,} of {self.count:,} rows", file=sys.stderr, flush=True)
                return rows >= self.count

            self.wait(complete, every=0.02)
        return marks

    @contextmanager
    def _rows_written(self, version: int) -> Iterator[Callable[[], int]]:
        """How many rows the build of a version has; each document is one."""
        with connected(self.settings) as client:
            name = collection_name(self.settings.retriever, version)
            self.wait(lambda: client.has_collection(name))
            build = Build.read(name, client.describe_collection(name)["properties"])
        assert build is not None
        topic = Topics.of(self.settings).documents
        topic_id = kafka.topic_id(kafka.admin(self.settings), topic)
        members = group(self.settings.group("index"), Assignment(build, topic_id))
        with closing(kafka.consumer(self.settings, members)) as reader:
            partitions = [TopicPartition(topic, p) for p in kafka.offsets(reader, topic)]
            yield lambda: sum(max(0, p.offset) for p in reader.committed(partitions, timeout=30))


class Worker:
    """``retrail worker`` as a process, that of the index by default."""

    def __init__(self, settings: Settings, log_file: Path, role: str = "index") -> None:
        self.role = role
        given = settings.model_dump(mode="json", exclude_defaults=True)
        self._child = Child(
            role,
            [sys.executable, "-m", "retrail_cli", "worker", role],
            log_file,
            environment={f"RETRAIL_{name.upper()}": str(value) for name, value in given.items()},
            folder=ROOT,
        )
        self._child.start()

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._child.pid

    def must_run(self) -> None:
        """Raise RuntimeError with the end of its log if it has ended."""
        if not self._child.running:
            status = self._child.exit_status
            raise RuntimeError(
                f"the worker {self.role} ended with {status}:\n{self._child.log_tail()}"
            )

    def end(self) -> None:
        """Stop it; returns when it has ended."""
        self._child.stop(30)


def _aliased(client: MilvusClient, settings: Settings) -> int | None:
    try:
        return search.resolve(client, settings, Deadline(30)).version
    except NoIndexError:
        return None


@contextmanager
def connected(settings: Settings) -> Iterator[MilvusClient]:
    """A bare client, closed at the end."""
    client = milvus.connect(settings)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def world(count: int, server: type[MilvusLite] = MilvusLite, layers: int = 1) -> Iterator[World]:
    """Fresh servers over a temporary folder, documents on their topic, and no worker yet.

    Args:
        layers: of the first release's model.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = KafkaBroker(folder / "kafka", folder / "kafka.log")
        lite = server(folder / "milvus", folder / "milvus.log")
        made: World | None = None
        try:
            broker.start()
            lite.start()
            corpus.model(1, layers).save(folder / "model")
            settings = Settings(
                kafka_bootstrap=broker.client_address,
                milvus_uri=lite.client_address,
                data_dir=folder / "data",
                model=str(folder / "model"),
                index_max_tokens=64,
                # No comparison while something else is measured.
                index_compare_seconds=3600.0,
            )
            topics_module.ensure(settings)
            publish(settings, count)
            made = World(settings, folder, count)
            yield made
        finally:
            for worker in made.workers if made else []:
                worker.end()
            lite.stop()
            broker.stop()


def publish(settings: Settings, count: int) -> None:
    """Write the documents."""
    kafka.send_all(
        kafka.producer(settings),
        Topics.of(settings).documents,
        ((found.doc_id.encode(), found.to_json()) for found in corpus.documents(count)),
    )
