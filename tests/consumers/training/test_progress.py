"""The health of a trainer: a table over what it observed of itself."""

import pytest

from consumers.training.progress import Observation, State, state_of


@pytest.mark.parametrize(
    ("observed", "state"),
    [
        (Observation(1000.0, joined=False), State.STARTING),
        (Observation(1000.0), State.STANDING_BY),
        (Observation(1000.0, "deciding"), State.WORKING),
        (Observation(1000.0, "waiting"), State.NO_RELEASE),
        (Observation(1000.0, "watching"), State.WORKING),
        (Observation(1000.0, "catching up"), State.WORKING),
        (Observation(1000.0, "working", moved_at=990.0), State.WORKING),
        (Observation(1000.0, "watching", broker_answers=False), State.BROKER_SILENT),
        (Observation(1000.0, joined=False, broker_answers=False), State.BROKER_SILENT),
        (Observation(1000.0, "working", moved_at=950.0), State.SLOW),
        (Observation(950.0, "watching", broker_answers=False), State.SLOW),
        (Observation(1000.0, "working", moved_at=390.0), State.STUCK),
        # The lease is lost, and the run does not end.
        (Observation(1000.0, "standing by", moved_at=390.0), State.STUCK),
        (Observation(390.0, "watching"), State.STUCK),
    ],
)
def test_the_first_state_that_applies(observed: Observation, state: State) -> None:
    assert state_of(observed, 1000.0) == state


def test_only_a_stuck_trainer_is_to_be_restarted() -> None:
    assert [state for state in State if not state.value.alive] == [State.STUCK]
