"""The state of an index worker."""

import pytest

from consumers.indexing.metrics import Observation, state_of
from retrail_runtime.health import State

SERVING = Observation(1000.0, serving="r_v1", target="r_v1")


@pytest.mark.parametrize(
    ("observed", "building", "loading", "state"),
    [
        (SERVING, [1000.0], [], State.WORKING),
        (Observation(1000.0, serving="r_v1", target="r_v2"), [1000.0], [], State.BUILDING),
        (Observation(1000.0, serving="r_v1"), [1000.0], [1000.0], State.BUILDING),
        (Observation(1000.0, target="r_v1"), [1000.0], [], State.STARTING),
        (Observation(1000.0), [], [], State.STARTING),
        # The alias points at a build of before the restart, whose model is being loaded.
        (SERVING, [], [1000.0], State.STARTING),
        (Observation(1000.0, topic_missing=True, serving="r_v1"), [], [], State.TOPIC_MISSING),
        (Observation(970.0, serving="r_v1", target="r_v1"), [1000.0], [], State.SLOW),
        (Observation(970.0, topic_missing=True), [1000.0], [], State.SLOW),
        (SERVING, [1000.0, 970.0], [], State.SLOW),
        (SERVING, [1000.0], [300.0], State.SLOW),
        (SERVING, [1000.0, 300.0], [], State.STUCK),
        (Observation(300.0), [300.0], [], State.STUCK),
    ],
)
def test_the_first_state_that_applies(
    observed: Observation, building: list[float], loading: list[float], state: State
) -> None:
    assert state_of(observed, building, loading, 1000.0) == state
