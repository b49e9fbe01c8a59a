"""Workers as processes over a real broker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.kafka import KafkaBroker
from schemas.settings import Settings
from tests.streams.campaign import REPORTS
from tests.streams.chat_server import ChatServer
from tests.streams.fleet import Fleet, installation


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of the fault campaigns."""
    if REPORTS:
        terminalreporter.section("fault campaigns")
        for report in REPORTS:
            terminalreporter.line(str(report))


@pytest.fixture
def settings(kafka: str, tmp_path: Path) -> Settings:
    """An installation of its own, without Milvus, whose topics exist."""
    return installation(kafka, tmp_path)


@pytest.fixture
def fleet(settings: Settings, tmp_path: Path) -> Iterator[Fleet]:
    """Worker processes of that installation, none of which outlives the test."""
    workers = Fleet(settings, tmp_path)
    yield workers
    workers.kill_all()


@pytest.fixture
def serve() -> Iterator[Callable[..., ChatServer]]:
    """Starts judging servers that answer with the result of ``reply(body, number)``."""
    servers: list[ChatServer] = []

    def start(reply: Callable[..., object], port: int = 0) -> ChatServer:
        servers.append(ChatServer(reply, port))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def own_fleet(own_broker: KafkaBroker, tmp_path: Path) -> Iterator[Fleet]:
    """Worker processes on that broker."""
    workers = Fleet(installation(own_broker.client_address, tmp_path), tmp_path)
    yield workers
    workers.kill_all()
