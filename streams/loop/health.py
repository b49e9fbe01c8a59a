"""Liveness and readiness of a stream worker: a table over its last observation.

A Faust worker can die silently, so liveness is offset progress while there are more records
(``docs/decisions/``, 0003). A worker may wait for the broker, for a judging server (the task has no
capacity then), and for partitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from retrail_runtime.metrics import Health

STALL_SECONDS = 60.0
"""Without progress while there are more records, or without an observation; then only a restart
helps."""


class State(Enum):
    """A state of a worker: alive, ready, and its meaning for a person."""

    TOPIC_MISSING = Health(True, False, "its topic does not exist")
    UNASSIGNED = Health(True, False, "waiting for partitions: it owns none")
    RECOVERING = Health(True, False, "reading again what open trajectories need")
    REFUSING = Health(True, False, "judged events are refused: some before them are missing")
    WORKING = Health(True, True, "working")
    SHUTTING_DOWN = Health(False, False, "shutting down after a failure")
    STALLED = Health(False, False, "no record is read although there are more")
    CONSUMER_UNRESPONSIVE = Health(False, False, "the consumer's thread does not answer")
    EVENT_LOOP_BLOCKED = Health(False, False, "the event loop has been blocked for too long")


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition that a worker owns.

    Attributes:
        lag: records that are not read yet; ``None`` before the log's end was read once.
        unmoved: seconds without a record while there were more, and capacity for them.
        recovered: whether the task has read again what a former owner processed.
        refusing: whether the task refuses records because others before them are missing.
    """

    lag: int | None
    unmoved: float
    recovered: bool
    refusing: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """The last observation of a worker.

    Attributes:
        at: time on the monotonic clock, in seconds.
        partitions: empty until some are assigned.
        topic_missing: whether the source topic does not exist now.
        consumer_silent: seconds since the consumer's thread last answered, with or without the
            broker.
        shutting_down: whether it has failed.
    """

    at: float
    partitions: Mapping[int, PartitionState] = field(default_factory=dict)
    topic_missing: bool = False
    consumer_silent: float = 0.0
    shutting_down: bool = False


def state_of(observation: Observation, now: float) -> State:
    """The first state that applies, in the order of these lines."""
    if observation.shutting_down:
        return State.SHUTTING_DOWN
    if now - observation.at > STALL_SECONDS:
        return State.EVENT_LOOP_BLOCKED
    if observation.consumer_silent > STALL_SECONDS:
        return State.CONSUMER_UNRESPONSIVE
    if observation.topic_missing:
        return State.TOPIC_MISSING
    if not observation.partitions:
        return State.UNASSIGNED
    if stalled(observation):
        return State.STALLED
    if any(state.refusing for state in observation.partitions.values()):
        return State.REFUSING
    if all(state.recovered or state.lag == 0 for state in observation.partitions.values()):
        return State.WORKING
    return State.RECOVERING


def stalled(observation: Observation) -> dict[int, PartitionState]:
    """The partitions of which no record is read although there are more."""
    return {
        partition: state
        for partition, state in observation.partitions.items()
        if state.lag and state.unmoved > STALL_SECONDS
    }
