"""The health of an index worker: a table over what it observed of itself."""

import pytest

from consumers.indexing.metrics import Observation, State, state_of

SERVING = Observation(1000.0, serving="r_v1", target="r_v1")


@pytest.mark.parametrize(
    ("observed", "moved_at", "state"),
    [
        (SERVING, [1000.0], State.WORKING),
        (SERVING, [], State.WORKING),
        (Observation(1000.0, serving="r_v1", target="r_v2"), [1000.0], State.BUILDING),
        (Observation(1000.0, serving="r_v1"), [1000.0], State.BUILDING),
        (Observation(1000.0, target="r_v1"), [1000.0], State.STARTING),
        (Observation(1000.0), [], State.STARTING),
        (Observation(1000.0, topic_missing=True, serving="r_v1"), [], State.TOPIC_MISSING),
        (Observation(950.0, serving="r_v1", target="r_v1"), [1000.0], State.SLOW),
        (Observation(950.0, topic_missing=True), [1000.0], State.SLOW),
        (SERVING, [1000.0, 300.0], State.STUCK),
        (Observation(300.0), [300.0], State.STUCK),
    ],
)
def test_the_first_state_that_applies(
    observed: Observation, moved_at: list[float], state: State
) -> None:
    assert state_of(observed, moved_at, 1000.0) == state


def test_only_a_stuck_worker_is_to_be_restarted() -> None:
    assert [state for state in State if not state.value.alive] == [State.STUCK]
