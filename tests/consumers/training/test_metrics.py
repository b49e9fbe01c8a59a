"""The state of a trainer."""

import pytest

from consumers.training.metrics import Phase, state_of
from retrail_runtime.health import State


@pytest.mark.parametrize(
    ("phase", "joined", "unmoved", "state"),
    [
        ("standing by", False, 0.0, State.STARTING),
        ("standing by", True, 0.0, State.STANDING_BY),
        ("deciding", True, 0.0, State.WORKING),
        ("waiting", True, 0.0, State.NO_RELEASE),
        ("watching", True, 0.0, State.WORKING),
        ("catching up", True, 0.0, State.WORKING),
        ("working", True, 15.0, State.WORKING),
        ("working", True, 30.0, State.SLOW),
        ("standing by", False, 30.0, State.SLOW),
        ("working", True, 610.0, State.STUCK),
        # The lease is lost, and the run does not end.
        ("standing by", True, 610.0, State.STUCK),
        ("watching", True, 610.0, State.STUCK),
    ],
)
def test_the_first_state_that_applies(
    phase: Phase, joined: bool, unmoved: float, state: State
) -> None:
    assert state_of(phase, joined=joined, unmoved=unmoved) == state
