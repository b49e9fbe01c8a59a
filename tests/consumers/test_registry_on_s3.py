"""The loop over a registry in object storage, with each part on a machine of its own.

Machines have nothing in common but Kafka, Milvus and the bucket: their data folders differ.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from consumers import releases
from consumers.indexing.milvus import Milvus
from consumers.training.reproduce import reproduce
from consumers.training.run import frozen_examples
from consumers.training.worker import train_now
from schemas.errors import RegistryError
from schemas.releases import Release
from schemas.runs import RunManifest, TrainingFile
from schemas.settings import Settings
from schemas.topics import Topics
from serving.retriever import Retriever
from tests import index_harness as harness
from tests.consumers.training.world import World, small
from tests.retrail_runtime.test_refusals import environment_of
from tests.started_servers import on_s3
from tests.trainer.model_writing import files_of, names
from tests.waiting import eventually
from trainer.registry.registry import Registry
from trainer.registry.storage import Storage


@pytest.fixture
def installation(settings: Settings, topics: Topics, s3_url: str, tmp_path: Path) -> Settings:
    return small(settings, tmp_path, registry=s3_url)


def machine(installation: Settings, name: str) -> Settings:
    return installation.model_copy(update={"data_dir": installation.data_dir / name})


@on_s3
def test_the_loop_works_over_object_storage(installation: Settings) -> None:
    world = World(machine(installation, "trainer"))
    world.open()
    world.pairs(30)

    release = train_now(world.settings)

    assert isinstance(release, Release)
    assert release.decision == "ship"
    location = release.model.location
    assert {
        f"{files_of(installation, release.model)}/model.safetensors",
        f"{location}.json",
        f"{location}.md",
        f"{location}.steps.csv",
        f"{installation.retriever}/v1.json",
    } <= set(names(installation))
    reproduced = reproduce(machine(installation, "repeater"), release.run_id or "")
    assert reproduced is not None
    assert reproduced.equal

    searching = machine(installation, "searching")
    with harness.working(machine(installation, "indexing")), Retriever(searching) as retriever:
        for act, version in (
            (None, 2),
            (lambda: releases.rollback(installation), 1),
            (lambda: releases.promote(installation, 2), 2),
        ):
            if act is not None:
                act()
            serves(installation, version)
            eventually(
                lambda v=version: retriever.search("amber").retriever_version == v,
                what=f"answer of version {version}",
            )


def serves(settings: Settings, version: int) -> None:
    milvus = Milvus(settings)
    name = f"{settings.retriever}_v{version}"
    eventually(lambda: milvus.aliased() == name, 60, f"alias on version {version}")


def test_an_unavailable_registry_is_not_a_lost_training_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost file leads to a rejected release; this file can be read later."""

    def away(storage: Storage, location: str) -> bytes:
        raise RegistryError("away")

    monkeypatch.setattr(Storage, "read", away)
    frozen = TrainingFile(location="r/training/x.jsonl", digest="0" * 64, examples=1)
    manifest = cast(RunManifest, SimpleNamespace(training_file=frozen))

    with pytest.raises(RegistryError):
        frozen_examples(Registry(str(tmp_path), tmp_path), manifest)


@pytest.mark.parametrize("role", ["train", "index"])
def test_a_worker_without_credentials_ends_with_the_reason(
    role: str, settings: Settings, topics: Topics, s3_url: str
) -> None:
    """Exit status 69: a supervisor starts it again, until the storage lets it in."""
    ended = subprocess.run(
        [sys.executable, "-m", "retrail_cli", "worker", role],
        env=environment_of(settings.model_copy(update={"registry": s3_url}))
        | {"AWS_SECRET_ACCESS_KEY": "wrong"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 69, ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert "denies permission" in last
    assert ("SignatureDoesNotMatch" if role == "train" else "Forbidden (403)") in last
    assert "AWS_SECRET_ACCESS_KEY" in last
