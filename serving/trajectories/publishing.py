"""Trajectories of many agents, published by one process."""

from dataclasses import dataclass

from retrail import Stats, Trajectory
from retrail.dispatch import Dispatch
from schemas.settings import Settings
from schemas.topics import Topics

QUEUE_EVENTS = 100_000
QUEUE_BYTES = 64 * 1024 * 1024
DELIVERY_SECONDS = 300.0
CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Agent:
    """Whose trajectory it is; events carry all three."""

    name: str
    model: str = ""
    tenant: str = ""


class Publisher:
    """As :class:`retrail.Publisher`, for trajectories of any number of agents.

    It never fails or delays a search: events that cannot be published are dropped, logged and
    counted (:attr:`stats`).
    """

    def __init__(self, settings: Settings) -> None:
        self._dispatch = Dispatch(
            raises=False,
            block_seconds=0.0,
            policies={"reasoning": "send", "answer": "send"},
            on_failure=None,
            config=settings.kafka(client_id="retrail-serving"),
            topic=Topics.of(settings).trajectory_events,
            max_events=QUEUE_EVENTS,
            max_bytes=QUEUE_BYTES,
            delivery_seconds=DELIVERY_SECONDS,
            close_seconds=CLOSE_SECONDS,
        )

    @property
    def stats(self) -> Stats:
        """What became of the events so far."""
        return self._dispatch.stats()

    def trajectory(self, trajectory_id: str, agent: Agent) -> Trajectory:
        """Open a trajectory; its id was never used before."""
        return Trajectory(
            self._dispatch,
            trajectory_id=trajectory_id,
            agent=agent.name,
            model=agent.model,
            tenant=agent.tenant,
            retriever_version=None,
        )

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait for Kafka to take what is queued, at most ``seconds``; again has no effect."""
        self._dispatch.outbox.close(seconds)
