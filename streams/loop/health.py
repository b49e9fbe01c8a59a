"""Whether a stream worker lives and is ready: a table over what was last observed of it.

A worker of Faust can die silently, so what counts is whether offsets move while the log has more
(``docs/decisions/``, 0003). Waiting is no death: for the broker, for a judging server (the task has
no room then), for partitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retrail_runtime.metrics import Health

STALL_SECONDS = 60.0
"""Without a record while the log has more, or without a look at it: only a restart helps."""

HealthState = Literal["unassigned", "recovering", "working", "leaving", "stalled", "deaf", "frozen"]

MEANING: Mapping[HealthState, Health] = {
    "unassigned": Health(True, False, "waiting for its partitions"),
    "recovering": Health(True, False, "reading again what open trajectories need"),
    "working": Health(True, True, "working"),
    "leaving": Health(False, False, "it cannot go on, and is about to exit"),
    "stalled": Health(False, False, "no record comes although there are more"),
    "deaf": Health(False, False, "the thread that reads from the broker does not answer"),
    "frozen": Health(False, False, "the worker has not looked at its partitions for too long"),
}


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition that a worker owns.

    Attributes:
        lag: records that it has not read; ``None`` before the first look at the log's end.
        unmoved: seconds for which there was more to read, and room for it, and nothing came.
        recovered: whether it has read again what was done before it came to this worker.
    """

    lag: int | None
    unmoved: float
    recovered: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """What a worker last saw of itself.

    Attributes:
        at: when, on the monotonic clock, in seconds.
        partitions: ``None`` until some, or none, were assigned.
        deaf: seconds for which the consumer's thread has not answered, not even to say that the
            broker does not.
        leaving: whether it has given up.
    """

    at: float
    partitions: Mapping[int, PartitionState] | None = None
    deaf: float = 0.0
    leaving: bool = False


def state_of(observation: Observation, now: float) -> HealthState:
    """The first that holds of: leaving, frozen, deaf, unassigned, stalled, recovering, working."""
    if observation.leaving:
        return "leaving"
    if now - observation.at > STALL_SECONDS:
        return "frozen"
    if observation.deaf > STALL_SECONDS:
        return "deaf"
    if observation.partitions is None:
        return "unassigned"
    if stalled(observation):
        return "stalled"
    if all(state.recovered or state.lag == 0 for state in observation.partitions.values()):
        return "working"
    return "recovering"


def stalled(observation: Observation) -> dict[int, PartitionState]:
    """The partitions of which nothing comes although there is more."""
    return {
        partition: state
        for partition, state in (observation.partitions or {}).items()
        if state.lag and state.unmoved > STALL_SECONDS
    }


def assess(observation: Observation, now: float) -> Health:
    """What ``/healthz`` and ``/readyz`` say at ``now``, on the observation's clock."""
    return MEANING[state_of(observation, now)]
