"""Runs `retrail …` in this process."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import structlog

from retrail.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


Retrail = Callable[..., Ended]


@pytest.fixture
def retrail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Retrail]:
    """Runs a command; what it sets up for logging is undone after the test."""
    monkeypatch.setenv("COLUMNS", "250")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ended(status, *capsys.readouterr())

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
