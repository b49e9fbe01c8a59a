"""Which states of a worker are healthy, and which are ready."""

import asyncio

import pytest

from schemas.errors import RestartRequiredError
from streams.loop.health import (
    MEANING,
    STALL_SECONDS,
    Observation,
    PartitionState,
    assess,
    stalled,
    state_of,
)
from streams.loop.worker import Worker

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
        ({0: IDLE}, LONG, "event_loop_blocked"),
        (None, LONG, "event_loop_blocked"),
    ],
)
def test_state_of_what_was_observed(partitions, age, state):
    observation = Observation(at=100.0, partitions=partitions)
    assert state_of(observation, 100.0 + age) == state
    assert assess(observation, 100.0 + age) == MEANING[state]


@pytest.mark.parametrize(
    ("silent", "state"), [(STALL_SECONDS - 1, "unassigned"), (LONG, "consumer_unresponsive")]
)
def test_a_thread_that_does_not_answer_is_no_broker_outage(silent, state):
    assert state_of(Observation(100.0, None, consumer_silent=silent), 100.0) == state


def test_only_what_is_stuck_wants_a_restart():
    stuck = {"shutting_down", "stalled", "consumer_unresponsive", "event_loop_blocked"}
    assert {state for state, health in MEANING.items() if not health.alive} == stuck
    assert {state for state, health in MEANING.items() if health.ready} == {"working"}


def test_stalled_partitions_are_named():
    assert stalled(Observation(0.0, {0: IDLE, 1: DEAD, 2: UNSEEN})) == {1: DEAD}
    assert stalled(Observation(0.0)) == {}


def test_a_worker_that_gave_up_is_not_alive_while_it_leaves():
    async def give_up():
        worker = Worker("events", None)
        worker.fail(RestartRequiredError("nothing comes"))
        before = worker.health()
        await worker.revoked()
        return before, worker.health()

    assert asyncio.run(give_up()) == (MEANING["shutting_down"], MEANING["shutting_down"])
