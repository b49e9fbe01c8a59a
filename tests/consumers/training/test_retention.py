"""Training files and results of the gate end with their retention; manifests and releases stay."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from consumers import erasing
from consumers.indexing.judging import Judge
from consumers.retention import expired, remove
from consumers.training.history import RunHistory
from consumers.training.reproduce import reproduce, verify
from consumers.training.worker import Trainer, train_now
from retrail_runtime.milvus import Build
from schemas.errors import InputError
from schemas.releases import Live
from schemas.runs import TrainingFile
from schemas.settings import Settings
from tests.consumers.training.world import World, turn_until
from tests.trained import a_decision, a_manifest, a_release
from tests.trainer.labelled import example
from trainer.data.lineage import History
from trainer.data.releases import Releases
from trainer.registry.registry import GATE_FILE, Registry

NOW = datetime(2026, 11, 30, tzinfo=UTC)
OLD, NEW = NOW - timedelta(days=9), NOW - timedelta(days=1)
BEFORE = NOW - timedelta(days=5)


def run(version: int, made: datetime, name: str) -> Any:
    file = TrainingFile(location=name, digest="0" * 64, examples=1)
    return a_manifest(version, created_at=made, training_file=file)


def release(version: int, made: datetime, **changes: Any) -> Any:
    values: dict[str, Any] = {"created_at": made, "results": "f" * 64} | changes
    decision = values.pop("decision", "hold")
    return a_release(version, version - 1, decision, **values)


def test_what_is_too_old_and_not_needed_is_removed() -> None:
    runs = (
        run(2, OLD, "old"),
        run(3, OLD, "twice"),
        run(4, NEW, "twice"),
        run(6, OLD, "candidate"),
        run(7, OLD, "unfinished"),
    )
    releases = (
        a_release(1, None, "ship", created_at=OLD),
        release(2, OLD),
        release(3, OLD, results=None),
        release(4, NEW),
        release(6, OLD, decision="ship", candidate=True),
    )
    by_version = {one.version: one for one in releases}
    live = Live(version=5, why="", changed_at=OLD)
    known = Releases(by_version=by_version, offsets=dict.fromkeys(by_version, 0), live=live)
    assert expired(History(runs, known), BEFORE) == {"old", "candidate", f"r/v2.{GATE_FILE}"}
    refused = replace(known, decisions={6: a_decision(6, "reject")})
    assert f"r/v6.{GATE_FILE}" in expired(History(runs, refused), BEFORE)
    assert expired(History(runs, known), OLD) == set()


def files(world: World) -> set[str]:
    folder = Path(world.settings.registry_url)
    every = {path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl")}
    return {name for name in every if "/training/" in name or name.endswith(GATE_FILE)}


def test_after_their_retention_runs_cannot_be_repeated_and_training_goes_on(world: World) -> None:
    world.settings = world.settings.model_copy(
        update={"erase_key": SecretStr("a key of the installation")}
    )
    world.open()
    world.pairs(30, tenant="acme")
    train_now(world.settings)
    registry = Registry.of(world.settings)
    orphan = registry.store_training_file(world.settings.retriever, (example(1),))
    [manifest] = world.manifests()
    made = world.releases().by_version[2]
    results = f"{made.model.location}.{GATE_FILE}"
    assert files(world) == {manifest.training_file.location, orphan.location, results}
    history = RunHistory(world.settings).refresh()
    assert remove(world.settings, history, manifest.created_at) == 0

    later = datetime.now(UTC) + timedelta(hours=1)
    assert remove(world.settings, history, later) == 3
    assert files(world) == set()
    assert remove(world.settings, history, later) == 0

    assert world.manifests() == [manifest]
    assert world.releases().by_version[2] == made
    for attempt in (reproduce, verify):
        with pytest.raises(InputError, match=r"removed by retention.*RETRAIL_TRAIN_RETENTION"):
            attempt(world.settings, manifest.run_id)
    # An erasure still names what may have learned; all pairs of the run's ranges count.
    found = erasing.erase(world.settings, "tenant", "acme")
    assert (found.pairs, found.runs, found.learned) == (30, (manifest.run_id,), (2,))
    world.pairs(30)
    train_now(world.settings)
    assert world.live() == 3


def test_the_active_trainer_removes_them(world: World, trainer: Callable[[], Trainer]) -> None:
    world.open()
    world.pairs(30)
    train_now(world.settings)
    assert len(files(world)) == 2
    world.settings = world.settings.model_copy(update={"train_retention_hours": 1e-6})
    turn_until(lambda: not files(world), trainer())
    assert world.live() == 2


def test_a_build_is_not_checked_with_queries_that_were_removed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    found = release(2, OLD)
    registry = Registry.of(settings)
    registry.write_beside(found.model, GATE_FILE, "{}")
    assert registry.notes.expire(f"{found.model.location}.{GATE_FILE}")
    nothing: Any = None
    known = Releases(by_version={2: found})
    build = Build("r_v2", 2, "id", found.model.location, found.model.digest)
    judge = Judge(settings, nothing, nothing, nothing, nothing, known, build)
    with capture_logs() as logged:
        judge.require_sound()
    assert "integrity not checked" in cast(str, logged[0]["event"])
