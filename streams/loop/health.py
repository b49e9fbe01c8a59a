"""Liveness and readiness of a stream worker: its state after its last observation.

A Faust worker can die silently, so liveness is offset progress while there are more records
(``docs/decisions/``, 0003). A worker may wait for the broker, for a judging server (the task has no
capacity then), and for partitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from retrail_runtime.health import State

STALL_SECONDS = 60.0
"""Without progress while there are more records, or without an observation; then only a restart
helps."""


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


def state_of(observed: Observation, now: float) -> State:
    """The state of a worker that observed this last."""
    partitions = observed.partitions.values()
    return State.of(
        {
            State.SHUTTING_DOWN: observed.shutting_down,
            State.EVENT_LOOP_BLOCKED: now - observed.at > STALL_SECONDS,
            State.CONSUMER_UNRESPONSIVE: observed.consumer_silent > STALL_SECONDS,
            State.STALLED: stalled(observed),
            State.TOPIC_MISSING: observed.topic_missing,
            State.UNASSIGNED: not partitions,
            State.REFUSING: any(state.refusing for state in partitions),
            # A log that was cut behind the checkpoint has nothing left to read again.
            State.RECOVERING: any(state.lag != 0 and not state.recovered for state in partitions),
        }
    )


def stalled(observation: Observation) -> dict[int, PartitionState]:
    """The partitions of which no record is read although there are more."""
    return {
        partition: state
        for partition, state in observation.partitions.items()
        if state.lag and state.unmoved > STALL_SECONDS
    }
