"""Workers as processes over a real broker."""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import topics as topics_module
from deploy.broker import KafkaBroker
from schemas.settings import Settings
from tests.streams.campaign import REPORTS
from tests.streams.fleet import Fleet


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of the fault campaigns."""
    if REPORTS:
        terminalreporter.section("fault campaigns")
        for report in REPORTS:
            terminalreporter.line(str(report))


@pytest.fixture
def settings(kafka: str, tmp_path: Path) -> Settings:
    """An installation of its own, without Milvus, whose topics exist."""
    made = Settings(
        kafka_bootstrap=kafka,
        topic_prefix=f"t{secrets.token_hex(4)}_",
        data_dir=tmp_path / "data",
        partitions=2,
        kafka_session_timeout=6.0,
    )
    topics_module.ensure(made)
    return made


@pytest.fixture
def fleet(settings: Settings, tmp_path: Path) -> Iterator[Fleet]:
    """Worker processes of that installation, none of which outlives the test."""
    workers = Fleet(settings, tmp_path)
    yield workers
    workers.kill_all()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of the test's own, to be taken away."""
    started = KafkaBroker(tmp_path / "kafka", tmp_path / "kafka.log")
    started.start()
    yield started
    if started.child is not None and started.child.running:
        os.kill(started.child.pid, signal.SIGCONT)
    started.stop()


@pytest.fixture
def own_fleet(broker: KafkaBroker, tmp_path: Path) -> Iterator[Fleet]:
    """Worker processes on that broker."""
    settings = Settings(
        kafka_bootstrap=broker.client_address,
        data_dir=tmp_path / "data",
        partitions=2,
        kafka_session_timeout=6.0,
    )
    topics_module.ensure(settings)
    workers = Fleet(settings, tmp_path)
    yield workers
    workers.kill_all()
