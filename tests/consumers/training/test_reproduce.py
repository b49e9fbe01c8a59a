"""A run trained again from its manifest."""

from pathlib import Path

import pytest

from consumers.training.reproduce import reproduce
from consumers.training.worker import train_now
from schemas.errors import InputError
from tests.consumers.training.world import World
from trainer.model.encoder import Encoder


def test_a_run_repeated_from_its_manifest_gives_the_released_model_and_writes_nothing(
    world: World,
) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    assert release is not None
    world.pairs(20)
    assert train_now(world.settings) is not None
    before = world.manifests(), world.releases()
    assert release.run_id is not None
    for wanted in (release.run_id, release.run_id[:8]):
        repeated = reproduce(world.settings, wanted)
        assert repeated is not None
        assert (repeated.released, repeated.equal) == (release, True)
        assert Encoder.load(repeated.folder).dimension == 32
    assert (world.manifests(), world.releases()) == before
    with pytest.raises(InputError, match=f"no run 'f00'.*{release.run_id} .release 2"):
        reproduce(world.settings, "f00")


def test_a_run_without_its_training_file_cannot_be_repeated(world: World) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    [manifest] = world.manifests()
    (Path(world.settings.registry_url) / manifest.training_file.location).unlink()
    with pytest.raises(InputError, match="training file"):
        reproduce(world.settings, manifest.run_id)
    assert world.releases().by_version[2] == release
