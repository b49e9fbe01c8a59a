"""The first turn has nothing to replay."""

import pytest

from schemas.settings import Settings
from simulation.demo.flywheel import for_first_turn


@pytest.mark.parametrize(
    ("epochs", "replay", "first"), [(1, 1.0, 2), (2, 0.5, 3), (1, 0.0, 1), (1, 0.25, 1)]
)
def test_the_first_turn_trains_as_long_as_one_that_replays(epochs, replay, first):
    settings = Settings(train_epochs=epochs, train_replay=replay)
    assert for_first_turn(settings).train_epochs == first
    assert settings.train_epochs == epochs
