"""A real broker over its folder."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from deploy.errors import StackError
from deploy.processes import server as ports
from deploy.servers.broker import KafkaBroker, server_properties
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


def test_broken_folder_is_told_with_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=x\n")
    with pytest.raises(StackError, match=r"kafka ended at its start with status 1(.|\n)*77"):
        KafkaBroker(tmp_path, tmp_path / "kafka.log").start()
