"""Which states of a worker are healthy, and which are ready."""

import pytest

from streams.health import (
    MEANING,
    STALL_SECONDS,
    Observation,
    PartitionState,
    assess,
    stalled,
    state_of,
)

LONG = STALL_SECONDS + 1
IDLE = PartitionState(lag=0, unmoved=0.0, recovered=True)
BUSY = PartitionState(lag=500, unmoved=2.0, recovered=True)
FOLDING = PartitionState(lag=500, unmoved=0.0, recovered=False)
DEAD = PartitionState(lag=1, unmoved=LONG, recovered=True)
UNSEEN = PartitionState(lag=None, unmoved=LONG, recovered=True)
EMPTY_AGAIN = PartitionState(lag=0, unmoved=0.0, recovered=False)


@pytest.mark.parametrize(
    ("partitions", "age", "state"),
    [
        (None, 0.0, "unassigned"),
        ({}, 0.0, "working"),
        ({0: IDLE, 1: BUSY}, 0.0, "working"),
        ({0: IDLE, 1: FOLDING}, 0.0, "recovering"),
        ({0: IDLE, 1: DEAD}, 0.0, "stalled"),
        ({0: FOLDING, 1: DEAD}, 0.0, "stalled"),
        ({0: UNSEEN}, 0.0, "working"),
        # A log that was cut behind the checkpoint has nothing left to read again.
        ({0: EMPTY_AGAIN}, 0.0, "working"),
        ({0: IDLE}, STALL_SECONDS - 1, "working"),
        ({0: IDLE}, LONG, "frozen"),
        (None, LONG, "frozen"),
    ],
)
def test_state_of_what_was_observed(partitions, age, state):
    observation = Observation(at=100.0, partitions=partitions)
    assert state_of(observation, 100.0 + age) == state
    assert assess(observation, 100.0 + age) == MEANING[state]


def test_only_a_stalled_or_frozen_worker_wants_a_restart():
    assert {state for state, health in MEANING.items() if not health.alive} == {"stalled", "frozen"}
    assert {state for state, health in MEANING.items() if health.ready} == {"working"}


def test_stalled_partitions_are_named():
    assert stalled(Observation(0.0, {0: IDLE, 1: DEAD, 2: UNSEEN})) == {1: DEAD}
    assert stalled(Observation(0.0)) == {}
