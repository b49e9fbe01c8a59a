"""Which states of a worker are healthy, and which are ready."""

import asyncio

import pytest

from retrail_runtime.health import State
from schemas.errors import RestartRequiredError
from streams.loop.health import STALL_SECONDS, Observation, PartitionState, stalled, state_of
from streams.loop.worker import Worker

LONG = STALL_SECONDS + 1
IDLE = PartitionState(lag=0, unmoved=0.0, recovered=True)
BUSY = PartitionState(lag=500, unmoved=2.0, recovered=True)
FOLDING = PartitionState(lag=500, unmoved=0.0, recovered=False)
DEAD = PartitionState(lag=1, unmoved=LONG, recovered=True)
UNSEEN = PartitionState(lag=None, unmoved=LONG, recovered=True)
REFUSING = PartitionState(lag=0, unmoved=0.0, recovered=True, refusing=True)
EMPTY_AGAIN = PartitionState(lag=0, unmoved=0.0, recovered=False)


@pytest.mark.parametrize(
    ("partitions", "age", "state"),
    [
        ({}, 0.0, State.UNASSIGNED),
        ({0: IDLE, 1: BUSY}, 0.0, State.WORKING),
        ({0: IDLE, 1: FOLDING}, 0.0, State.RECOVERING),
        ({0: IDLE, 1: DEAD}, 0.0, State.STALLED),
        ({0: FOLDING, 1: DEAD}, 0.0, State.STALLED),
        ({0: UNSEEN}, 0.0, State.WORKING),
        # A log that was cut behind the checkpoint has nothing left to read again.
        ({0: EMPTY_AGAIN}, 0.0, State.WORKING),
        ({0: IDLE}, STALL_SECONDS - 1, State.WORKING),
        ({0: IDLE}, LONG, State.EVENT_LOOP_BLOCKED),
        ({}, LONG, State.EVENT_LOOP_BLOCKED),
        ({0: IDLE, 1: REFUSING}, 0.0, State.REFUSING),
        ({0: DEAD, 1: REFUSING}, 0.0, State.STALLED),
    ],
)
def test_state_of_what_was_observed(partitions, age, state):
    observation = Observation(at=100.0, partitions=partitions)
    assert state_of(observation, 100.0 + age) == state


@pytest.mark.parametrize(
    ("silent", "state"),
    [(STALL_SECONDS - 1, State.UNASSIGNED), (LONG, State.CONSUMER_UNRESPONSIVE)],
)
def test_a_thread_that_does_not_answer_is_no_broker_outage(silent, state):
    assert state_of(Observation(100.0, consumer_silent=silent), 100.0) == state


def test_a_topic_that_is_gone_is_waited_for():
    observation = Observation(100.0, {0: IDLE}, topic_missing=True)
    assert state_of(observation, 100.0) == State.TOPIC_MISSING


def test_stalled_partitions_are_named():
    assert stalled(Observation(0.0, {0: IDLE, 1: DEAD, 2: UNSEEN})) == {1: DEAD}
    assert stalled(Observation(0.0)) == {}


def test_a_worker_that_gave_up_is_not_alive_while_it_leaves():
    async def give_up():
        worker = Worker("events", None, 1)
        worker.fail(RestartRequiredError("nothing comes"))
        before = worker.health()
        await worker.revoked()
        return before, worker.health()

    assert asyncio.run(give_up()) == (State.SHUTTING_DOWN, State.SHUTTING_DOWN)
