"""All roles of an installation as processes of a source tree, which may be an older one."""

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pymilvus import MilvusClient, MilvusException

from consumers import releases
from deploy import environment
from deploy.processes import free_ports
from deploy.stack import retrail_worker
from retrail_runtime import kafka
from retrail_runtime.milvus import version_of
from schemas.documents import Document, encode
from schemas.settings import Settings
from schemas.topics import Topics
from tests.streams.fleet import Fleet, Worker
from tests.streams.topics import read
from tests.tiny_model import write_tiny_model
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
READERS_FIRST = ("train", "index", "mine", "judge", "serve")
"""The order in which roles are replaced: a role is never older than the one that it reads."""
DOCUMENTS = 97
"""Those of :func:`tests.streams.trajectories.trajectory`."""


def settings_of(folder: Path, kafka_bootstrap: str, milvus_uri: str, name: str) -> Settings:
    """An installation that trains and releases within seconds."""
    return Settings(
        kafka_bootstrap=kafka_bootstrap,
        milvus_uri=milvus_uri,
        topic_prefix=f"{name}_",
        retriever=f"{name}_retriever",
        data_dir=folder / "data",
        partitions=2,
        kafka_session_timeout=6.0,
        model=str(write_tiny_model(folder / "model")),
        index_max_tokens=32,
        train_min_pairs=150,
        train_max_age_seconds=3600.0,
        train_epochs=1,
        train_batch_size=16,
        gate_margin=1.0,
        gate_min_queries=1,
        serve_secret="0123456789abcdef0123456789abcdef",
        serve_deadline_seconds=60.0,
    )


class Process(Worker):
    """A process of any role."""

    @property
    def ready(self) -> bool:
        """Whether it answers that it is ready."""
        try:
            return bool(self.ports) and self.page("/readyz")[0] == 200
        except OSError:
            return False

    def wait(self, seconds: float = 60) -> int:
        """Its exit status; a trainer takes up to 20 s to stop its run."""
        return super().wait(seconds)

    def leave(self) -> None:
        """SIGTERM; asserts that it ends with 0."""
        status = self.stop()
        assert status == 0, f"{self.role} ended with {status}:\n{self.log[-3000:]}"


@dataclass
class Server(Process):
    """`retrail serve`, whose pages are on its own port."""

    port: int = 0

    @property
    def ports(self) -> list[int]:
        return [self.port]

    def leave(self) -> None:
        """SIGTERM; asserts that it ends in order; the older version then ends by the signal."""
        assert self.stop() in (0, -signal.SIGTERM), self.log[-3000:]
        assert "Application shutdown complete" in self.log


class Installation(Fleet):
    """Starts, replaces and stops the processes of one installation."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self._numbers = itertools.count()

    def start(self, role: str, source: Path = ROOT, **variables: str) -> Process:
        """A process with the installation's settings and the modules below ``source``."""
        log_file = self._folder / f"{role}-{next(self._numbers)}.log"
        port = free_ports(1)[0] if role == "serve" else 0
        command = retrail_worker(role)
        if role == "serve":
            command = [*command[:-2], "serve", "--port", str(port)]
        clean = {name: value for name, value in os.environ.items() if "RETRAIL_" not in name}
        ours = {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                command,
                env=clean | environment.variables(self.settings) | ours | variables,
                stdout=log,
                stderr=log,
            )
        place = (role, process, log_file, self.settings.data_dir)
        found = Server(*place, port=port) if role == "serve" else Process(*place)
        self.workers.append(found)
        return found

    def started(self, role: str, source: Path = ROOT) -> Process:
        """The same, once it is ready."""
        found = self.start(role, source)
        self.until_ready(found)
        return found

    def until_ready(self, process: Process) -> None:
        """Wait for its readiness; asserts that it does not end meanwhile."""

        def ready() -> bool:
            assert process.process.poll() is None, process.log[-3000:]
            return process.ready

        eventually(ready, 120, f"readiness of {process.role}:\n{process.log[-1500:]}", interval=0.2)

    def replace(self, process: Process, source: Path = ROOT) -> Process:
        """SIGTERM, wait for its end, start another one, wait until it is ready.

        A server is replaced the other way round: the new one is ready before the old one ends.
        """
        if isinstance(process, Server):
            found = self.started(process.role, source)
            process.leave()
            return found
        process.leave()
        return self.started(process.role, source)

    @property
    def servers(self) -> list[Server]:
        """The servers that run, the newest first."""
        return [one for one in reversed(self.living) if isinstance(one, Server)]


def load_documents(settings: Settings) -> None:
    """The documents that the trajectories of the tests open."""
    documents = (Document(doc_id=f"d{n}", text=f"document {n} of many") for n in range(DOCUMENTS))
    producer, topic = kafka.producer(settings), Topics.of(settings).documents
    kafka.send_all(producer, topic, [encode(document) for document in documents])


def served_version(settings: Settings) -> int:
    """The version at which the alias points; 0 without one."""
    with closing(MilvusClient(uri=settings.milvus_uri)) as client:
        try:
            found = client.describe_alias(settings.retriever)["collection_name"]
        except MilvusException:
            return 0
        return version_of(settings.retriever, found) or 0


def until_live_serves(settings: Settings, seconds: float = 120) -> int:
    """Wait until the alias points at the live release; returns its version."""

    def serves() -> bool:
        live = releases.read(settings).live
        return live is not None and served_version(settings) == live.version

    eventually(serves, seconds, "the live release on the alias", interval=0.5)
    return served_version(settings)


@dataclass
class Searches:
    """Searches over HTTP during a block; those that broke off were asked again elsewhere."""

    answered: int = 0
    broken: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def searching(fleet: Installation) -> Iterator[Searches]:
    """Search four times a second, at the newest server that takes the connection."""
    over, found = threading.Event(), Searches()

    def search() -> None:
        with httpx.Client(timeout=60) as http:
            while not over.wait(0.25):
                errors = []
                for server in fleet.servers:
                    url = f"http://127.0.0.1:{server.port}/v1/search"
                    try:
                        answer = http.post(url, json={"query": "document 7", "k": 5})
                    except httpx.TransportError as error:
                        found.broken += not isinstance(error, httpx.ConnectError)
                        errors.append(repr(error))
                        continue
                    if answer.status_code == 200 and answer.json()["hits"]:
                        found.answered += 1
                    else:
                        errors.append(f"{answer.status_code} {answer.text[:300]}")
                        continue
                    break
                else:
                    found.failures.append("; ".join(errors))

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def searches_published(settings: Settings, own: set[str]) -> int:
    """Searches on trajectory-events of trajectories that are not in ``own``."""
    source = read(settings, Topics.of(settings).trajectory_events)
    return sum((one.key() or b"").decode() not in own for one in source)
