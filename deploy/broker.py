"""One node of Apache Kafka (KRaft: broker and controller in one process) on the loopback."""

import base64
import json
import subprocess
import time
import uuid
from pathlib import Path

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy import jars, ports
from deploy.child import Child
from deploy.errors import PortTaken, StackFailed
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES

log = structlog.get_logger(__name__)

START_TIMEOUT = 60.0
STOP_GRACE = 20.0

JVM_OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    # The quick compiler and the simple collector: listens 20% earlier with 40% less CPU time.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    # Hundreds of lines of settings at every start.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
)


class KafkaBroker:
    """A broker over a folder, which keeps its records and its port between starts."""

    label = f"apache-{jars.KAFKA_VERSION}"

    def __init__(self, folder: Path, log_file: Path, *, port: int = 0) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            folder: what the broker keeps; made if it is not there.
            log_file: where its output goes.
            port: to listen on; 0 takes the one that this folder had last, or any free one.
        """
        self.folder = folder
        self.log_file = log_file
        self._wanted_port = port
        self.port = 0
        self.child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients; valid once started."""
        return f"{ports.LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Fetch, format and run the broker; returns when it answers.

        Raises:
            ToolMissing: no Java, or no Maven when the jars must be fetched.
            PortTaken: the port that was asked for is in use.
            StackFailed: it did not start; the message holds the end of its log.
        """
        java, classpath = jars.java(), f"{jars.kafka_jars()}/*"
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.port, controller = self._choose_ports()
        properties = self.folder / "server.properties"
        properties.write_text(server_properties(self.folder / "data", self.port, controller))
        command = [java, *JVM_OPTIONS, "-cp", classpath]
        if not (self.folder / "data" / "meta.properties").exists():
            _format([*command, "kafka.tools.StorageTool", "format"], properties)
        self.child = Child("kafka", [*command, "kafka.Kafka", str(properties)], self.log_file)
        began = time.monotonic()
        self.child.start()
        try:
            self._await_answer(self.child, began + START_TIMEOUT)
        except BaseException:
            self.child.kill()
            raise
        log.info("broker ready", bootstrap=self.bootstrap, seconds=round(time.monotonic() - began))

    def stop(self) -> None:
        """Stop it cleanly; after 20 s by force."""
        if self.child is not None:
            self.child.stop(STOP_GRACE)

    def _choose_ports(self) -> tuple[int, int]:
        kept = self.folder / "ports.json"
        if self._wanted_port and not ports.is_free(self._wanted_port):
            raise PortTaken(
                f"Port {self._wanted_port}, asked for the broker, is in use. Choose another one, "
                "or 0 for any free one."
            )
        last: dict[str, int] = json.loads(kept.read_text()) if kept.exists() else {}
        chosen = {}
        for name, wanted in (("broker", self._wanted_port), ("controller", 0)):
            candidate = wanted or last.get(name, 0)
            if candidate and ports.is_free(candidate):
                chosen[name] = candidate
            else:
                (chosen[name],) = ports.free_ports(1)
                if candidate:
                    log.warning("port taken, using another", was=candidate, now=chosen[name])
        kept.write_text(json.dumps(chosen))
        return chosen["broker"], chosen["controller"]

    def _await_answer(self, child: Child, deadline: float) -> None:
        while not ports.answers(self.port):
            self._require_running(child, deadline)
            time.sleep(0.05)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        while True:
            try:
                if admin.list_topics(timeout=2).brokers:
                    return
            except KafkaException as error:
                log.debug("broker not ready yet", error=str(error))
            self._require_running(child, deadline)
            time.sleep(0.05)

    def _require_running(self, child: Child, deadline: float) -> None:
        if not child.running:
            what = f"The broker ended at its start with status {child.exit_status}"
        elif time.monotonic() > deadline:
            what = f"The broker did not answer within {START_TIMEOUT:.0f} s"
        else:
            return
        raise StackFailed(f"{what}. The end of {self.log_file}:\n{child.log_tail()}")


def server_properties(data: Path, port: int, controller_port: int) -> str:
    """Settings of a single small node; loopback only."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{ports.LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"BROKER://{ports.LOOPBACK}:{port},"
        f"CONTROLLER://{ports.LOOPBACK}:{controller_port}",
        "advertised.listeners": f"BROKER://{ports.LOOPBACK}:{port}",
        "inter.broker.listener.name": "BROKER",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        # After a kill the controller waits for the old session to run out before it starts anew.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # A stack that rests for weeks must find its place again.
        "offsets.retention.minutes": 366 * 24 * 60,
        "message.max.bytes": MAX_EVENT_BYTES + ADDED_BYTES,
        # Small compacted topics: roll and clean at last every ten minutes, with a small buffer.
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


def _format(command: list[str], properties: Path) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # "=": an id may begin with a dash.
    arguments = [f"--cluster-id={cluster_id}", f"--config={properties}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise StackFailed(f"Kafka could not format {properties.parent}:\n{said}")
