"""A run trained again from its frozen training file: ``retrail train --run``.

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

from consumers.training.history import RunHistory
from consumers.training.progress import OnStep, reporting
from consumers.training.run import frozen_examples, train_child
from retrail_runtime.kafka import require_broker
from schemas.errors import InputError
from schemas.releases import Release
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.lineage import History
from trainer.fit.processes import SINGLE_PROCESS, Processes
from trainer.model.encoder import Encoder
from trainer.registry.manifest import digest_of
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

COMPARED = 256
"""Queries that a model of other files is compared by."""

SHOWN = 5
"""Runs that are listed if an id is unknown, the newest."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A run that was trained again.

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


def reproduce(
    settings: Settings,
    wanted: str,
    *,
    on_step: OnStep | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> Reproduced | None:
    """Train the child of a run again, into ``<data dir>/repeats/<run id>``.

    Args:
        wanted: a run's id, or the beginning of one.
        on_step: called after every optimiser step.
        processes: that train it together, each of which makes this call.

    Returns:
        The model, in the first process; nothing in the others, which write nothing.

    Raises:
        InputError: there is no such run, it has no release yet, or its training file is lost.
        ModelError: the parent's model is missing, or not the one that was released.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    history, manifest = find_run(settings, wanted)
    known = history.releases.by_version
    released = known.get(manifest.version)
    if released is None:
        raise InputError(
            f"Run {manifest.run_id} has no release yet, so there is nothing to compare with. The "
            "active trainer finishes it; `retrail train` does so at once."
        )
    registry = Registry.of(settings)
    report = train_child(
        registry,
        known[manifest.parent].model,
        manifest,
        on_step=reporting(lambda: None, on_step),
        processes=processes,
    )
    if not processes.first:
        return None
    folder = settings.data_dir / "repeats" / manifest.run_id
    _write(folder, report.encoder.save)
    digest, similarity = digest_of(folder), 1.0
    if digest != released.model.digest:
        queries = [example.query for example in frozen_examples(registry, manifest)[:COMPARED]]
        similarity = smallest_cosine(report.encoder, registry.load(released.model), queries)
    found = Reproduced(folder, digest, released, similarity)
    log.info("run reproduced", run=manifest.run_id, folder=str(folder), equal=found.equal)
    return found


def find_run(settings: Settings, wanted: str) -> tuple[History, RunManifest]:
    """All runs and releases, and the run whose id begins with ``wanted``.

    Raises:
        InputError: there is none, or there are several.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    topics = Topics.of(settings)
    require_broker(settings, [topics.training_runs, topics.retriever_releases])
    history = RunHistory(settings).refresh()
    return history, find(history, wanted)


def find(history: History, wanted: str) -> RunManifest:
    """The run whose id begins with ``wanted``.

    Raises:
        InputError: there is none, or there are several.
    """
    found = [run for run in history.runs if run.run_id.startswith(wanted)]
    if wanted and len(found) == 1:
        return found[0]
    if wanted and found:
        several = ", ".join(sorted(run.run_id for run in found))
        raise InputError(f"Several runs begin with {wanted}: {several}.")
    last = [f"{run.run_id} (release {run.version})" for run in history.runs[-SHOWN:]]
    raise InputError(f"There is no run {wanted!r}. The last ones: {', '.join(last) or 'none yet'}.")


def smallest_cosine(one: Encoder, two: Encoder, queries: Sequence[str]) -> float:
    """Between the vectors that both give a query."""
    return float((one.encode_queries(queries) * two.encode_queries(queries)).sum(axis=1).min())


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill ``folder`` anew; it never holds half a model."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
