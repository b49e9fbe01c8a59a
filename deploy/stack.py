"""The local stack: broker, Milvus Lite and workers as child processes over a data directory."""

import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from deploy import environment, topics
from deploy.errors import StackError
from deploy.kafka import KafkaBroker
from deploy.milvus import MilvusLite
from deploy.processes import Child, Server
from deploy.supervisor import Supervisor, Worker
from retrail_runtime import files
from retrail_runtime import milvus as milvus_client
from retrail_runtime.files import atomic_write
from retrail_runtime.kafka import require_broker
from schemas.settings import Settings

ROLES = ("judge", "mine", "train", "index")
WORKERS_TIMEOUT = 180.0
"""Seconds until every worker serves its metrics page; loading a model takes most of it."""
MILVUS_TIMEOUT = 10.0
"""Seconds for the answer of a Milvus that is not started here."""


def retrail_worker(role: str) -> list[str]:
    """The command that runs one worker, with :func:`python_environment` in its environment."""
    return [sys.executable, "-P", "-m", "retrail_cli", "worker", role]


def python_environment() -> dict[str, str]:
    """Variables of a worker's Python.

    It finds our packages beside this one, and never in the current folder, which may hold a
    ``schemas`` of its own.
    """
    earlier = os.environ.get("PYTHONPATH")
    ours = str(Path(__file__).parents[1])
    path = os.pathsep.join([ours, earlier]) if earlier else ours
    return {"PYTHONPATH": path}


@dataclass(frozen=True, slots=True)
class Part:
    """State of one part of the stack; ``role`` is empty for a server."""

    name: str
    state: str
    where: str
    pid: int | None
    log_file: Path | None
    role: str = ""


class LocalStack:
    """Broker, Milvus and workers that run while this context manager is entered.

    A Kafka or Milvus named in ``settings`` (``RETRAIL_KAFKA_BOOTSTRAP``, ``RETRAIL_MILVUS_URI``,
    or an argument) is used; otherwise it is started.

    Example::

        with LocalStack(load(data_dir=folder), workers=("judge", "mine")) as stack:
            Publisher(stack.settings.kafka_bootstrap)
            stack.check()  # every second or so: restarts workers, raises if the stack is lost
    """

    def __init__(
        self,
        settings: Settings,
        workers: Sequence[str] = ROLES,
        *,
        kafka_port: int = 0,
        milvus_port: int = 0,
        announce: Callable[[str], object] = lambda text: None,
        worker_command: Callable[[str], list[str]] = retrail_worker,
    ) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            settings: of the installation; ``data_dir`` is locked while the stack runs.
            workers: roles, each started once per mention.
            kafka_port: of a broker that is started; 0: the last one, or any free one.
            milvus_port: the same for Milvus.
            announce: called with messages about what happens.
            worker_command: the command of a role.
        """
        self.settings = settings
        self._given = frozenset(settings.model_fields_set)
        self._roles = workers
        self._kafka_port = kafka_port
        self._milvus_port = milvus_port
        self._announce = announce
        self._worker_command = worker_command
        self._servers: list[Server] = []
        self._workers: list[Worker] = []
        self._supervisor = Supervisor(self._servers, self._workers, announce)
        self._lock: FileLock | None = None

    def start(self) -> None:
        """Start everything; returns when every worker serves its metrics page.

        Raises:
            RetrailError: something is missing, in use, or does not start; nothing is left running.
        """
        try:
            self._lock = _locked(self.settings.data_dir)
            self._servers.clear()
            self._workers.clear()
            _remove_metrics_of_ended_workers(self.settings.data_dir / "run")
            if not self.settings.serve_secret_path.exists():
                atomic_write(self.settings.serve_secret_path, secrets.token_hex(32), mode=0o600)
            self._require_given()
            self._start_servers()
            topics.ensure(self.settings)
            self._start_workers()
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Restart workers that exited; to be called about every second or more often.

        Raises:
            StackError: the broker or Milvus ended, or a worker exited three times in five minutes.
        """
        self._supervisor.check()

    def stop(self) -> None:
        """Stop workers, Milvus and broker, in this order."""
        try:
            self._supervisor.stop()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    @property
    def kafka(self) -> str:
        """The broker: its version and its Java, or ``external``."""
        brokers = (one.description for one in self._servers if isinstance(one, KafkaBroker))
        return next(brokers, "external")

    @property
    def started(self) -> list[str]:
        """The variables with addresses of servers that this stack started."""
        return [f"RETRAIL_{server.setting.upper()}" for server in self._servers]

    def send_kill(self) -> None:
        """Kill everything without waiting; safe in a signal handler."""
        self._supervisor.send_kill()

    def __enter__(self) -> "LocalStack":
        """Start, see :meth:`start`."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, see :meth:`stop`."""
        self.stop()

    def parts(self) -> list[Part]:
        """The state of all parts, external servers included."""
        started = {server.name: server for server in self._servers}
        addresses = (("kafka", self.settings.kafka_bootstrap), ("milvus", self.settings.milvus_uri))
        found = []
        for name, address in addresses:
            if (server := started.get(name)) and server.child:
                state = "running" if server.child.running else "stopped"
                found.append(Part(name, state, address, server.child.pid, server.log_file))
            else:
                found.append(Part(name, "external", address, None, None))
        for worker in self._workers:
            port = worker.metrics_port
            where = f"http://{self.settings.metrics_host}:{port}/metrics" if port else ""
            child = worker.child
            found.append(
                Part(worker.name, worker.state, where, child.pid, child.log_file, worker.role)
            )
        return found

    def _require_given(self) -> None:
        """Fail before anything is started if a given server does not answer."""
        if "kafka_bootstrap" in self._given:
            require_broker(self.settings, [])
        if "milvus_uri" in self._given:
            milvus_client.connect(self.settings, timeout=MILVUS_TIMEOUT).close()

    def _start_servers(self) -> None:
        folder = self.settings.data_dir
        if "kafka_bootstrap" not in self._given:
            self._launch(
                KafkaBroker(
                    folder / "kafka",
                    self._log_file("kafka"),
                    port=self._kafka_port,
                    announce=self._announce,
                )
            )
        if "milvus_uri" not in self._given:
            self._launch(
                MilvusLite(folder / "milvus", self._log_file("milvus"), port=self._milvus_port)
            )
        for server in self._servers:
            server.wait_until_ready()
            self._announce(f"{server.name} ready at {server.address}")
            address = {server.setting: server.client_address}
            self.settings = self.settings.model_copy(update=address)

    def _launch(self, server: Server) -> None:
        self._servers.append(server)
        server.launch()
        self._announce(f"starting {server.name} ({server.description})")

    def _start_workers(self) -> None:
        for number, role in enumerate(self._roles):
            earlier = self._roles[:number].count(role)
            name = f"{role}-{earlier + 1}" if earlier else role
            settings = self._worker_settings(number)
            child = Child(
                name,
                self._worker_command(role),
                self._log_file(name),
                environment=python_environment() | environment.variables(settings),
            )
            self._workers.append(Worker(child, self.settings.data_dir / "run"))
            child.start()
        if not self._workers:
            return
        began = time.monotonic()
        names: list[str] = []
        while waiting := [worker for worker in self._workers if worker.state != "running"]:
            self.check()
            if names != (names := [worker.name for worker in waiting]):
                self._announce(f"waiting for workers, which load libraries: {', '.join(names)}")
            if time.monotonic() > began + WORKERS_TIMEOUT:
                late = waiting[0]
                raise StackError(
                    f"{late.name} did not start within {WORKERS_TIMEOUT:.0f} s. "
                    f"{late.child.end_of_log}"
                )
            time.sleep(0.05)
        self._announce("workers ready")

    def _worker_settings(self, number: int) -> Settings:
        """Settings of the ``number``-th worker: metrics ports count up from the given one."""
        if not self.settings.metrics_port:
            return self.settings
        port = self.settings.metrics_port + number
        return self.settings.model_copy(update={"metrics_port": port})

    def _log_file(self, name: str) -> Path:
        return self.settings.data_dir / "logs" / f"{name}.log"


def _locked(folder: Path) -> FileLock:
    """Lock a data directory; the lock ends with this process."""
    owner = folder / "stack.pid"
    lock = files.try_lock(folder / "stack.lock")
    if lock is None:
        pid = owner.read_text() if owner.exists() else "unknown"
        raise StackError(
            f"Another stack runs on {folder} (process {pid}). Stop it, or choose another "
            "folder with --data-dir."
        )
    atomic_write(owner, str(os.getpid()))
    return lock


def _remove_metrics_of_ended_workers(run: Path) -> None:
    """Remove the metrics files of workers that were killed with an earlier stack."""
    for file in run.glob("*-*.metrics"):
        pid = file.stem.rpartition("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            file.unlink(missing_ok=True)
