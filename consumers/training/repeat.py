"""A run again, from its frozen training file: ``retrail train --run``.

Nothing is written to a topic or to the registry. The model is a function of the parent's model, the
frozen file and the configuration, so on the same machine it has the digest of the released one.
Several processes, started by torchrun, sum gradients in another order than one, and Adam amplifies
that; their model is compared by the vectors that it gives.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from consumers.training.child import (
    OnStep,
    TrainingFileLost,
    frozen_examples,
    train_child,
)
from consumers.training.progress import reporting
from consumers.training.training_ledger import Ledger
from retrail_runtime.kafka import require_broker
from schemas.errors import InputError
from schemas.releases import Release
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.lineage import History, Run
from trainer.fit.processes import ALONE, Processes
from trainer.model.encoder import Encoder
from trainer.registry.manifest import digest_of
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

COMPARED = 256
"""Queries that a model of other files is compared by."""

SHOWN = 5
"""Runs that an unknown id is answered with, the newest."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """What a repetition gave.

    Attributes:
        folder: where the model lies.
        digest: over its files.
        released: what the run was released as.
        similarity: the smallest cosine between the vectors of both models, over queries of the
            run; 1 if the files are equal.
    """

    folder: Path
    digest: str
    released: Release
    similarity: float

    @property
    def equal(self) -> bool:
        """Whether the model is the released one."""
        return self.digest == self.released.model.digest


def repeat(
    settings: Settings,
    wanted: str,
    *,
    on_step: OnStep | None = None,
    processes: Processes = ALONE,
) -> Repeated | None:
    """Train the child of a run again, into ``<data dir>/repeats/<run id>``.

    Args:
        wanted: a run's id, or the beginning of one.
        on_step: called after every optimiser step.
        processes: that train it together, each of which makes this call.

    Returns:
        What it gave, in the first process; nothing in the others, which write nothing.

    Raises:
        InputError: there is no such run, it has no release yet, or its training file is lost.
        ModelError: the parent's model is gone, or not the one that was released.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    topics = Topics.of(settings)
    require_broker(settings, [topics.training_runs, topics.retriever_releases])
    ledger = Ledger(settings)
    history = ledger.refresh()
    run = find(history, wanted)
    known = history.releases.by_version
    released = known.get(run.version)
    if released is None:
        raise InputError(
            f"Run {run.run_id} has no release yet, so there is nothing to compare a repetition "
            "with. The active trainer finishes it; `retrail train` does so at once."
        )
    registry = Registry.of(settings)
    manifest = ledger.manifest(run)
    try:
        report = train_child(
            registry,
            known[run.parent].model,
            manifest,
            on_step=reporting(_never, on_step),
            processes=processes,
        )
    except TrainingFileLost as error:
        raise InputError(f"Run {run.run_id} cannot be repeated: {error}") from error
    if not processes.first:
        return None
    folder = settings.data_dir / "repeats" / run.run_id
    _write(folder, report.encoder.save)
    digest = digest_of(folder)
    similarity = 1.0
    if digest != released.model.digest:
        queries = [example.query for example in frozen_examples(registry, manifest)[:COMPARED]]
        similarity = smallest_cosine(report.encoder, registry.load(released.model), queries)
    repeated = Repeated(folder, digest, released, similarity)
    log.info("run repeated", run=run.run_id, folder=str(folder), equal=repeated.equal)
    return repeated


def smallest_cosine(one: Encoder, two: Encoder, queries: Sequence[str]) -> float:
    """Between the vectors that both give a query."""
    return float((one.encode_queries(queries) * two.encode_queries(queries)).sum(axis=1).min())


def find(history: History, wanted: str) -> Run:
    """The run whose id begins with ``wanted``.

    Raises:
        InputError: there is none, or there are several.
    """
    runs = {run.run_id: run for run in reversed(history.runs) if run.run_id.startswith(wanted)}
    if wanted and len(runs) == 1:
        return next(iter(runs.values()))
    if wanted and runs:
        raise InputError(f"Several runs begin with {wanted}: {', '.join(sorted(runs))}.")
    last = [f"{run.run_id} (release {run.version})" for run in history.runs[-SHOWN:]]
    raise InputError(f"There is no run {wanted!r}. The last ones: {', '.join(last) or 'none yet'}.")


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill ``folder`` anew; it never holds half a model."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _never() -> None:
    """Nothing interrupts a repetition but Ctrl-C."""
