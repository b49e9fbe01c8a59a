"""Whether a stream worker lives and is ready: a table over what was last observed of it.

A worker of Faust can die silently, so what counts is whether offsets move while the log has more
(``docs/decisions/``, 0003). A worker may wait: for the broker, for a judging server (the task has
no capacity then), for partitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retrail_runtime.metrics import Health

STALL_SECONDS = 60.0
"""Without a record while the log has more, or without a look at it: only a restart helps."""

HealthState = Literal[
    "unassigned",
    "recovering",
    "working",
    "shutting_down",
    "stalled",
    "consumer_unresponsive",
    "event_loop_blocked",
]

MEANING: Mapping[HealthState, Health] = {
    "unassigned": Health(True, False, "waiting for its partitions"),
    "recovering": Health(True, False, "reading again what open trajectories need"),
    "working": Health(True, True, "working"),
    "shutting_down": Health(False, False, "shutting down after a failure"),
    "stalled": Health(False, False, "no record comes although there are more"),
    "consumer_unresponsive": Health(False, False, "the consumer's thread does not answer"),
    "event_loop_blocked": Health(False, False, "the event loop has been blocked for too long"),
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
        consumer_silent: seconds for which the consumer's thread has not answered, not even that the
            broker does not.
        shutting_down: whether it has failed.
    """

    at: float
    partitions: Mapping[int, PartitionState] | None = None
    consumer_silent: float = 0.0
    shutting_down: bool = False


def state_of(observation: Observation, now: float) -> HealthState:
    """The first state that applies, in the order of these lines."""
    if observation.shutting_down:
        return "shutting_down"
    if now - observation.at > STALL_SECONDS:
        return "event_loop_blocked"
    if observation.consumer_silent > STALL_SECONDS:
        return "consumer_unresponsive"
    if observation.partitions is None:
        return "unassigned"
    if stalled(observation):
        return "stalled"
    if all(state.recovered or state.lag == 0 for state in observation.partitions.values()):
        return "working"
    return "recovering"


def stalled(observation: Observation) -> dict[int, PartitionState]:
    """The partitions of which no record comes although there are more."""
    return {
        partition: state
        for partition, state in (observation.partitions or {}).items()
        if state.lag and state.unmoved > STALL_SECONDS
    }


def assess(observation: Observation, now: float) -> Health:
    """What ``/healthz`` and ``/readyz`` answer at ``now``, on the observation's clock."""
    return MEANING[state_of(observation, now)]
