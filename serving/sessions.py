"""Open trajectories: to which one a request belongs, and when it ends.

A request names its trajectory by a *handle*: a name that the client chose (``task-17``), or the
trajectory id of an earlier answer. The number of the next event is kept in memory only, so no id is
used twice: every trajectory id has a random part. A restarted server opens new trajectories for the
handles of earlier ones, which the miner closes when they have been idle.
"""

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import structlog

from retrail import Trajectory
from retrail_runtime.metrics import at_zero
from serving import metrics

if TYPE_CHECKING:
    from serving.retriever import SearchResult

TRAJECTORY_HEADER = "Retrail-Trajectory"
"""Header of requests and answers that names the trajectory."""
HANDLE = r"^[A-Za-z0-9._:~-]{1,160}$"
"""Pattern of what a client may send; trajectory ids in answers match it."""

DEFAULT_AGENT = "agent"
"""Name of agents that give none."""

Outcome = Literal["correct", "incorrect", "unknown"]
EndedBy = Literal["end", "idle", "full", "shutdown"]

at_zero(metrics.TRAJECTORIES_ENDED, get_args(EndedBy))

_RANDOM_BYTES = 16
_LONGEST_NAME = 160 - 2 * _RANDOM_BYTES - 1
_MADE_HERE = re.compile(rf"^(?:(.*)\.)?[0-9a-f]{{{2 * _RANDOM_BYTES}}}$")

log = structlog.get_logger(__name__)


def new_trajectory_id(handle: str | None, random: str) -> str:
    """An id for a handle without an open trajectory; ``random`` is 32 hexadecimal digits.

    >>> new_trajectory_id("task-17", 8 * "0123")
    'task-17.01230123012301230123012301230123'
    >>> new_trajectory_id("task-17." + 8 * "ba98", 8 * "0123")
    'task-17.01230123012301230123012301230123'
    >>> new_trajectory_id(None, 8 * "0123")
    '01230123012301230123012301230123'
    """
    if handle is None:
        return random
    before = _MADE_HERE.match(handle)
    name = handle if before is None else before.group(1)
    return f"{name[:_LONGEST_NAME]}.{random}" if name else random


@dataclass(frozen=True, slots=True)
class Agent:
    """Whose trajectory it is; events carry all three."""

    name: str
    model: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """The agent of a request, and the trajectory that it continues (no handle: a new one).

    A name means the same trajectory only to the same agent, model and tenant; a trajectory id and
    the handle of a transport's own ``session`` mean it to every caller that has them.
    """

    agent: Agent
    handle: str | None = None
    session: bool = False
    address: str = ""

    @property
    def who(self) -> object:
        """What shares of the server are counted by."""
        return self.address, self.agent

    @property
    def key(self) -> tuple[Agent | None, str] | None:
        """Key under which the trajectory is found; its id finds it too."""
        return None if self.handle is None else (None if self.session else self.agent, self.handle)

    @property
    def name(self) -> str | None:
        """The part of the handle that the id may show; a transport's session is a secret."""
        return None if self.session else self.handle


class TrajectoryPublisher(Protocol):
    """The part of :class:`retrail.Publisher` that sessions need."""

    def trajectory(self, trajectory_id: str, *, agent: str, model: str, tenant: str) -> Trajectory:
        """Open a trajectory."""


@dataclass(slots=True, eq=False)
class Session:
    """One open trajectory. Its events are published in the order of the answers."""

    trajectory_id: str
    trajectory: Trajectory
    key: tuple[Agent | None, str] | None
    used_at: float
    events: int = field(default=0)

    def reasoned(self, reasoning: str | None) -> None:
        """Publish the reasoning since the last call, about the document opened before it."""
        if reasoning:
            self.trajectory.reason(reasoning)
            self.events += 1

    def searched(self, query: str, result: "SearchResult") -> None:
        """Publish a search."""
        self.trajectory.search(query, result.hits, retriever_version=result.retriever_version)
        self.events += 1

    def opened(self, doc_id: str) -> None:
        """Publish the opening of a document."""
        self.trajectory.browse(doc_id)
        self.events += 1

    def end(self, outcome: Outcome, answer: str | None) -> None:
        """Publish the end."""
        if answer is not None:
            self.trajectory.answer(answer)
            self.events += 1
        if self.events:
            self.trajectory.end(outcome)
            self.events += 1


class Sessions:
    """Open trajectories by handle; for one thread (an event loop's).

    Args:
        idle_seconds: time without a call after which :meth:`end_idle` ends a trajectory.
        most: maximum open trajectories; one more ends the least recently used one.
        now: seconds of a monotonic clock.
    """

    def __init__(
        self,
        publisher: TrajectoryPublisher,
        *,
        idle_seconds: float,
        most: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._idle_seconds, self._most, self._now = idle_seconds, most, now
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._named: dict[tuple[Agent | None, str], Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def of(self, caller: Caller) -> Session:
        """The open trajectory of a caller's handle, or a new one."""
        session = self._find(caller) or self._begin(caller)
        session.used_at = self._now()
        self._open.move_to_end(session.trajectory_id)
        return session

    def end(
        self,
        caller: Caller,
        outcome: Outcome = "unknown",
        answer: str | None = None,
        reasoning: str | None = None,
    ) -> Session | None:
        """End a caller's trajectory; ``None`` if it is not open."""
        session = self._find(caller)
        if session is not None:
            session.reasoned(reasoning)
            self._end(session, "end", outcome, answer)
        return session

    def end_idle(self) -> int:
        """End idle trajectories; returns how many."""
        count, limit = 0, self._now() - self._idle_seconds
        while self._open and (oldest := next(iter(self._open.values()))).used_at <= limit:
            self._end(oldest, "idle")
            count += 1
        return count

    def end_all(self) -> None:
        """End all trajectories, because the server stops."""
        while self._open:
            self._end(next(iter(self._open.values())), "shutdown")

    def _find(self, caller: Caller) -> Session | None:
        if caller.handle is None or caller.key is None:
            return None
        return self._open.get(caller.handle) or self._named.get(caller.key)

    def _begin(self, caller: Caller) -> Session:
        if len(self._open) >= self._most:
            self._end(next(iter(self._open.values())), "full")
        trajectory_id = new_trajectory_id(caller.name, secrets.token_hex(_RANDOM_BYTES))
        agent = caller.agent
        trajectory = self._publisher.trajectory(
            trajectory_id, agent=agent.name, model=agent.model, tenant=agent.tenant
        )
        session = Session(trajectory_id, trajectory, caller.key, self._now())
        self._open[trajectory_id] = session
        if caller.key is not None:
            self._named[caller.key] = session
        metrics.TRAJECTORIES_OPEN.set(len(self._open))
        return session

    def _end(
        self, session: Session, by: EndedBy, outcome: Outcome = "unknown", answer: str | None = None
    ) -> None:
        del self._open[session.trajectory_id]
        if session.key is not None:
            del self._named[session.key]
        session.end(outcome, answer)
        metrics.TRAJECTORIES_OPEN.set(len(self._open))
        metrics.TRAJECTORIES_ENDED.labels(by).inc()
        log.debug(
            "trajectory ended", trajectory=session.trajectory_id, by=by, events=session.events
        )
