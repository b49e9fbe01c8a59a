"""An installation with a tiny model, and trainers in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consumers.training.worker import Trainer
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World, small


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    changes = {"kafka_session_timeout": 6.0, "train_min_pairs": 16, "train_batch_size": 4}
    return World(small(settings, tmp_path, **changes))


@pytest.fixture
def trainer(world: World) -> Iterator[Callable[[], Trainer]]:
    """A function that starts workers with the world's current settings."""
    started: list[Trainer] = []

    def _start() -> Trainer:
        started.append(Trainer(world.settings, "worker"))
        return started[-1]

    yield _start
    for one in started:
        one.close()
