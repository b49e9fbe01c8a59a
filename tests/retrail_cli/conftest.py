"""Runs `retrail …` in this process."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from retrail_cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


Retrail = Callable[..., Ended]


@pytest.fixture
def retrail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, logging_restored: None
) -> Retrail:
    """Runs a command; what it sets up for logging is undone after the test."""
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ended(status, *capsys.readouterr())

    return run
