"""An erasure from end to end: topics, local copies, training files, gate results, reproduction."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from consumers import erasing
from consumers.training.mirrors import Mirrors
from consumers.training.reproduce import verify
from consumers.training.worker import train_now
from deploy import environment
from retrail_runtime import kafka
from schemas import pairs
from schemas.errors import ConfigurationError, InputError
from schemas.events import Agent
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World, small
from trainer.registry.registry import Registry

KEY = SecretStr("a key of the installation")
TENANT, AGENT = "tenant-of-marker", "agent-of-marker"


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    """Two releases; both learned from a tenant, the second one from an agent, too."""
    made = World(
        small(settings, tmp_path, erase_key=KEY, train_batch_size=4, kafka_session_timeout=6.0)
    )
    made.open()
    for tenant in (TENANT, "kept"):
        made.pairs(20, tenant=tenant)
    train_now(made.settings)
    made.pairs(10, agent=Agent(name=AGENT, model="m"))
    made.pairs(20, tenant=TENANT)
    train_now(made.settings)
    assert made.live() == 3
    return made


def frozen_ids(world: World, manifest: RunManifest) -> set[str]:
    examples = Registry.of(world.settings).load_training_file(manifest.training_file)
    return {example.pair_id for example in examples}


def ids_on_topic(world: World, tenant: str) -> set[str]:
    records = kafka.read_to_end(world.settings, world.topics.labelled_pairs)
    found = [pairs.decode(record.value) for record in records]
    return {pair.pair_id for pair in found if pair.tenant == tenant}


@pytest.fixture
def mirrors(world: World, tmp_path: Path) -> Iterator[Mirrors]:
    with closing(Mirrors(world.settings, tmp_path / "copy")) as copies:
        copies.catch_up(lambda topic, count: None)
        yield copies


def test_a_tenant_is_erased_everywhere(world: World, mirrors: Mirrors, tmp_path: Path) -> None:
    gone, kept = ids_on_topic(world, TENANT), ids_on_topic(world, "kept")
    first, second = world.manifests()
    assert frozen_ids(world, first) & gone
    assert frozen_ids(world, second) & gone
    results = Path(world.settings.registry_url) / (
        f"{world.releases().by_version[2].model.location}.gate.jsonl"
    )
    before = results.read_text()

    found = erasing.erase(world.settings, "tenant", TENANT)

    assert found.pairs == len(gone) == 40
    assert set(found.runs) == {first.run_id, second.run_id}
    assert found.learned == (2, 3)
    registry = Registry.of(world.settings)
    for manifest in (first, second):
        left = frozen_ids(world, manifest)
        assert left
        assert not left & gone
        note = registry.erasure_note(manifest.training_file.location)
        assert note.erasures == (found.erasure.erasure_id,)
    assert len(results.read_text()) < len(before)
    assert results.read_text().splitlines()[-1] == before.splitlines()[-1], "the pool stays"

    verified = verify(world.settings, first.run_id)
    assert verified.differences == {"erasure": (found.erasure.erasure_id,)}

    # A copy that had the pairs, and one that begins now.
    mirrors.pairs.forget(mirrors._erasures.refresh())
    assert not mirrors.pairs.get(sorted(gone))
    assert {pair.pair_id for pair in mirrors.pairs.get(sorted(kept))} == kept
    files = [file.read_bytes() for file in (tmp_path / "copy").glob("*labelled-pairs.sqlite*")]
    assert not any(TENANT.encode() in content for content in files)
    with closing(Mirrors(world.settings, tmp_path / "new copy")) as copies:
        copies.catch_up(lambda topic, count: None)
        assert not copies.pairs.get(sorted(gone))

        later = world.pairs(3, tenant=TENANT)
        copies.catch_up(lambda topic, count: None)
        assert len(copies.pairs.get([pair.pair_id for pair in later])) == 3, "later ones are kept"

    [record] = kafka.read_to_end(world.settings, world.topics.erasures)
    assert TENANT.encode() not in (record.value or b"")

    again = erasing.erase(world.settings, "agent", AGENT)
    assert (again.pairs, again.runs, again.learned) == (10, (second.run_id,), (3,))


def test_one_trajectory(world: World) -> None:
    found = erasing.erase(world.settings, "trajectory", "trajectory-1")
    assert found.pairs == 1
    assert erasing.erase(world.settings, "trajectory", "nobody").learned == ()


SABOTAGED = """
import os, signal, sys
from consumers import erasing
from schemas.settings import load
from trainer.registry.storage import Storage
real, writes = Storage.write, 0
def write(self, location, content):
    global writes
    if "training/" in location or "gate" in location:
        writes += 1
        if writes == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    real(self, location, content)
Storage.write = write
erasing.erase(load(), "tenant", sys.argv[2])
"""


@pytest.mark.parametrize("write", [1, 2, 3])
def test_killed_in_the_middle_and_repeated(world: World, write: int) -> None:
    """Killed before the first note, between a note and its file, and between two files."""
    gone = ids_on_topic(world, TENANT)
    killed = subprocess.run(
        [sys.executable, "-c", SABOTAGED, str(write), TENANT],
        env=os.environ | environment.variables(world.settings),
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for manifest in world.manifests():
        assert frozen_ids(world, manifest), "every file can be read"
    found = erasing.erase(world.settings, "tenant", TENANT)
    assert len(found.runs) == 2
    assert found.learned == (2, 3)
    for manifest in world.manifests():
        assert not frozen_ids(world, manifest) & gone


def test_a_process_without_the_key_stops(world: World, tmp_path: Path) -> None:
    erasing.erase(world.settings, "tenant", TENANT)
    for key in (None, SecretStr("another key, of 16 or more")):
        settings = world.settings.model_copy(update={"erase_key": key})
        with pytest.raises(ConfigurationError, match="RETRAIL_ERASE_KEY"):
            Mirrors(settings, tmp_path / "other")
    with pytest.raises(ConfigurationError, match="RETRAIL_ERASE_KEY"):
        erasing.erase(settings.model_copy(update={"erase_key": None}), "tenant", TENANT)


def test_events_that_are_not_judged_yet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "JUDGE_SECONDS", 0.5)
    kafka.publish_and_wait(
        world.producer, world.topics.trajectory_events, key=b"t", value=b"not judged"
    )
    with pytest.raises(InputError, match=r"not read 1 events.*retrail worker judge"):
        erasing.erase(world.settings, "tenant", TENANT)
    assert list(kafka.read_to_end(world.settings, world.topics.erasures)) == []
