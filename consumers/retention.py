"""Removes training files and results of the gate that are older than RETRAIL_TRAIN_RETENTION_HOURS.

Manifests and releases stay. The note beside a file (``….erased.json``) says that the file was
removed by retention, so that it is not taken for lost.
"""

from datetime import UTC, datetime, timedelta

import structlog

from schemas.errors import ModelError
from schemas.settings import Settings
from trainer.data import candidates, lineage
from trainer.data.lineage import History
from trainer.registry.registry import GATE_FILE, Registry

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 3600.0
"""Interval between the sweeps of the active trainer."""


def sweep(settings: Settings, history: History) -> None:
    """Remove what is too old; a failure is only logged."""
    hours = settings.train_retention_hours
    if hours is None:
        return
    try:
        remove(settings, history, datetime.now(UTC) - timedelta(hours=hours))
    except ModelError as error:
        log.warning("cannot remove old training files", error=str(error))


def remove(settings: Settings, history: History, before: datetime) -> int:
    """Remove the files of before a moment; returns how many.

    Raises:
        RegistryError: the registry cannot be used.
    """
    registry = Registry.of(settings)
    gone = expired(history, before)
    named = {run.training_file.location for run in history.runs}
    for location in {*registry.training_files(settings.retriever)} - named:
        # Of a run that ended before its manifest.
        if registry.notes.modified(location) < before:
            gone.add(location)
    removed = [location for location in sorted(gone) if registry.notes.expire(location)]
    if removed:
        log.info("files removed by retention", number=len(removed), before=str(before))
    return len(removed)


def expired(history: History, before: datetime) -> set[str]:
    """Locations of the training files and results of before a moment that no program needs.

    A training file is needed until its run has ended, results until the candidate is decided on.
    """
    known = history.releases
    old, needed = set[str](), set[str]()
    for run in history.runs:
        keep = run.created_at >= before or lineage.unfinished(history, run)
        (needed if keep else old).add(run.training_file.location)
    for version, release in known.by_version.items():
        decided = candidates.state(known, version) not in ("open", "passed", "waiting")
        if release.results is not None and release.created_at < before and decided:
            old.add(f"{release.model.location}.{GATE_FILE}")
    return old - needed
