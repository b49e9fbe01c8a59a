"""Runs `retrail …` in this process, and topics on Kafka for it."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy import topics as deploy_topics
from retrail_cli import main
from schemas.settings import Settings


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


Retrail = Callable[..., Ended]


@pytest.fixture
def retrail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Retrail:
    """Runs a command; what it sets up for logging is undone after the test."""
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def installation(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Topics of the test's own, and the variables that name them."""
    settings = Settings(
        kafka_bootstrap=kafka,
        topic_prefix=f"t{secrets.token_hex(4)}_",
        data_dir=tmp_path / "data",
        partitions=3,
    )
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("RETRAIL_DATA_DIR", str(settings.data_dir))
    deploy_topics.ensure(settings)
    return settings
