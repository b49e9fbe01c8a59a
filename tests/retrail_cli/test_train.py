"""`retrail train --run …` on real topics: verified, and repeated under torchrun."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from consumers.training.reproduce import verify
from consumers.training.worker import train_now
from retrail_runtime import kafka
from schemas.documents import Document
from schemas.errors import InputError
from schemas.releases import Release
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World, small
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    return World(small(settings, tmp_path, train_outcome_policy="weight"))


def test_a_run_is_verified_against_the_topics(
    world: World, retrail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.pairs(20)
    assert isinstance(train_now(world.settings), Release)
    # Repeats and others' records in the ranges change nothing; some pairs weigh half.
    again = world.pairs(20, outcome="incorrect")
    world.publish(again[:5])
    kafka.send_all(world.producer, world.topics.labelled_pairs, [(b"x", b"{")])
    assert isinstance(train_now(world.settings), Release)
    first, second = world.manifests()
    assert second.replayed
    world.pairs(10)
    read: dict[str, int] = {}

    def progress(topic: str, count: int) -> None:
        read[topic] = read.get(topic, 0) + count

    for manifest in (first, second):
        found = verify(world.settings, manifest.run_id[:8], progress=progress)
        assert found.differences == {}
        assert found.equal
    # The trainer's local copy has the rest.
    assert read[world.topics.labelled_pairs] == 10

    for name, value in world.settings.model_dump(mode="json", exclude_defaults=True).items():
        monkeypatch.setenv(f"RETRAIL_{name.upper()}", str(value))
    done = retrail("train", "--run", second.run_id, "--verify")
    assert done.status == 0
    assert "equals what the topics give, byte for byte" in done.out

    pair = next(p for p in again if p.pair_id in world.trained(second)[0])
    changed, deleted = pair.positive, pair.negatives[0]
    kafka.send_all(
        world.producer,
        world.topics.documents,
        [
            (changed.encode(), Document(doc_id=changed, text="new text").to_json()),
            (deleted.encode(), None),
        ],
    )
    assert verify(world.settings, second.run_id).differences == {
        "document changed": [changed],
        "document deleted": [deleted],
    }
    done = retrail("train", "--run", second.run_id, "--verify")
    assert done.status == 1
    assert f"document changed: 1 ({changed})" in done.out
    assert f"document deleted: 1 ({deleted})" in done.out
    assert "can be repeated all the same" in done.out

    (Path(world.settings.registry_url) / second.training_file.location).unlink()
    with pytest.raises(InputError, match="training file"):
        verify(world.settings, second.run_id)


@pytest.mark.faults
def test_torchrun_repeats_a_run_in_two_processes(world: World) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    assert isinstance(release, Release)
    [manifest] = world.manifests()
    values = world.settings.model_dump(mode="json", exclude_none=True)

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command += ["-m", "retrail_cli", "train", "--run-id", manifest.run_id[:8]]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {f"RETRAIL_{name.upper()}": str(v) for name, v in values.items()},
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr
    # One of the two speaks and writes.
    assert done.stdout.count("The model is in") == 1
    assert f"release {release.version}" in done.stdout
    [folder] = (world.settings.data_dir / "repeats").iterdir()
    one, other = (
        Encoder.load(path, max_tokens=None, precision="float32", device="cpu")
        for path in (folder, Registry.of(world.settings).open(release.model))
    )
    queries = [pair.query for pair in world.pairs(5)]
    cosines = (one.encode_queries(queries) * other.encode_queries(queries)).sum(axis=1)
    assert cosines.min() > 0.999
    assert sorted(world.releases().by_version) == [1, release.version]


@pytest.mark.parametrize("arguments", [[], ["--run", "3f", "--verify"]])
def test_torchrun_is_for_repetitions(
    retrail: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    done = retrail("train", *arguments)
    assert done.status == 2
    assert "add --run-id ID" in done.err


def test_verify_needs_a_run(retrail: Any) -> None:
    done = retrail("train", "--verify")
    assert done.status == 2
    assert "--run ID" in done.err
