"""The health of an index worker."""

from collections.abc import Collection
from dataclasses import dataclass

from retrail_runtime import health
from retrail_runtime.health import State


@dataclass(frozen=True, slots=True)
class Observation:
    """What the main loop of a worker last observed.

    Attributes:
        turned_at: its last turn, on the monotonic clock, in seconds.
        topic_missing: whether ``documents`` does not exist.
        serving: the collection that the alias points at.
        target: the collection that should serve.
    """

    turned_at: float
    topic_missing: bool = False
    serving: str | None = None
    target: str | None = None


def state_of(
    observed: Observation, building: Collection[float], loading: Collection[float], now: float
) -> State:
    """The state of a worker.

    Args:
        building: time of the last progress of each build that is followed: a batch of the encoder,
            or a poll of the topic. A slow encoder makes progress within a chunk, a stuck one does
            not.
        loading: time since which the model of a build is being loaded.
    """
    waiting = (observed.turned_at, *building, *loading)
    return State.of(
        {
            State.STUCK: building and now - min(building) > health.STUCK_SECONDS,
            State.SLOW: now - min(waiting) > health.SLOW_SECONDS,
            State.TOPIC_MISSING: observed.topic_missing,
            State.STARTING: observed.serving is None or not building,
            State.BUILDING: observed.serving != observed.target,
        }
    )
