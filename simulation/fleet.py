"""Runs many scripted agents: their searches are answered in batches.

:func:`work` publishes their steps; :func:`watch` records them as events, without a broker.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from retrail import Publisher, PublishError, Timeout, Trajectory
from schemas import events
from schemas.errors import DeliveryError
from schemas.events import Event
from schemas.settings import Settings
from serving.retriever import Hit as FoundHit
from serving.retriever import Retriever
from simulation.corpus import Need
from simulation.scripted import (
    AGENT_NAME,
    HITS,
    Agent,
    Answered,
    Asked,
    Browsed,
    Ended,
    Hit,
    Mind,
    Step,
    Thought,
    act,
)

TIMEOUT = Timeout(block=60.0)
AT_ONCE = 64
"""Queries of one search call."""
WHEN = datetime(2026, 11, 1, tzinfo=UTC)
"""Time of every recorded event: in a file no time passes."""

SearchMany = Callable[[Sequence[str]], Sequence[Sequence[Hit]]]
"""The hits of each query, in rank order, ten of each."""

Progress = Callable[[int, int], None]
"""Called with the number of items done, and of all."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Assignment:
    """An agent and its need."""

    need: Need
    mind: Mind


@dataclass(frozen=True, slots=True)
class Work:
    """What a fleet did.

    Attributes:
        events: number of acknowledged events.
        correct: number of agents with a correct answer.
    """

    events: int
    correct: int


def assignments(needs: Sequence[Need], agents: int, *, seed: int, turn: int) -> list[Assignment]:
    """Assign needs to agents; with fewer needs than agents, some needs have several."""
    found = []
    for number in range(agents):
        again, index = divmod(number, len(needs))
        need = needs[index]
        found.append(Assignment(need, Mind.of(seed, turn, need.need_id, again)))
    return found


def work(
    todo: Sequence[Assignment],
    retriever: Retriever,
    settings: Settings,
    *,
    on_progress: Progress,
) -> Work:
    """Run every agent; returns when all events are acknowledged.

    Args:
        todo: the agents and their needs.
        retriever: the live one.
        settings: where to publish.
        on_progress: called several times a second; an exception from it ends the work.

    Raises:
        DeliveryError: the broker did not take all events.
        RetrailError: the retriever failed.
    """
    try:
        with Publisher(
            AGENT_NAME,
            bootstrap=settings.kafka_bootstrap,
            topic_prefix=settings.topic_prefix,
            on_error="raise",
            timeout=TIMEOUT,
        ) as publisher:
            correct = _work(todo, retriever, publisher, on_progress)
            if publisher.flush(TIMEOUT.block):
                raise DeliveryError(
                    f"Kafka did not take the agents' events within {TIMEOUT.block:.0f} s."
                )
        return Work(publisher.stats.delivered, correct)
    except PublishError as error:
        raise DeliveryError(f"The agents could not publish what they did. {error}") from error


def _work(
    todo: Sequence[Assignment], retriever: Retriever, publisher: Publisher, on_progress: Progress
) -> int:
    """Run and publish every trajectory; returns the number of correct answers."""
    version, correct = 0, 0

    def search_many(queries: Sequence[str]) -> list[list[FoundHit]]:
        nonlocal version
        found = retriever.search_many(queries, HITS)
        version = found[0].retriever_version
        return [result.hits for result in found]

    def on_step(trajectory: Trajectory, step: Step, hits: Sequence[Hit]) -> None:
        nonlocal correct
        publish(trajectory, step, hits, version)
        correct += isinstance(step, Ended) and step.outcome == "correct"

    agents = (
        (
            publisher.trajectory(task.mind.trajectory_id, model=task.mind.persona.model),
            act(task.need, task.mind),
        )
        for task in todo
    )
    work_in_rounds(agents, search_many, on_step, progress=on_progress)
    return correct


def publish(trajectory: Trajectory, step: Step, hits: Sequence[Hit], version: int) -> None:
    """Publish one step as an event."""
    match step:
        case Asked(query):
            trajectory.search(query, hits, retriever_version=version)
        case Browsed(doc_id):
            trajectory.browse(doc_id)
        case Thought(text):
            trajectory.reason(text)
        case Answered(text):
            trajectory.answer(text)
        case Ended(outcome):
            trajectory.end(outcome)


class Recorder:
    """The events of one trajectory, as a client would publish them."""

    def __init__(self, name: str, agent: events.Agent, tenant: str, version: int) -> None:
        self.events: list[Event] = []
        self._envelope = {
            "trajectory_id": name,
            "occurred_at": WHEN,
            "agent": agent,
            "tenant": tenant,
            "retriever_version": version,
        }
        self._about: str | None = None

    def add(self, step: Step, hits: Sequence[Hit]) -> None:
        """One step of a scripted agent as an event."""
        about, self._about = self._about, None
        match step:
            case Asked(query):
                found = tuple(
                    events.Hit(doc_id=hit.doc_id, rank=hit.rank, score=hit.score) for hit in hits
                )
                self.append(events.Search, query=query, hits=found)
            case Browsed(doc_id):
                self._about = doc_id
                self.append(events.Browse, doc_id=doc_id)
            case Thought(text):
                self.append(events.Reasoning, text=text, about=about)
            case Answered(text):
                self.append(events.Answer, text=text)
            case Ended(outcome):
                self.append(events.End, outcome=outcome)

    def append(self, kind: type[Any], **fields: Any) -> None:
        """One event, numbered behind those before it."""
        seq = len(self.events)
        event_id = f"{self._envelope['trajectory_id']}-{seq}"
        self.events.append(kind(event_id=event_id, seq=seq, **self._envelope, **fields))


def watch(
    todo: Sequence[Assignment],
    search_many: SearchMany,
    *,
    version: int = 1,
    tenant: str = "",
    progress: Progress = lambda done, of: None,
) -> dict[str, list[Event]]:
    """Let agents work; the events of each trajectory by its id, in the order of ``todo``.

    Raises:
        Whatever ``search_many`` raises.
    """
    recorders = {
        task.mind.trajectory_id: Recorder(
            task.mind.trajectory_id,
            events.Agent(name=AGENT_NAME, model=task.mind.persona.model),
            tenant,
            version,
        )
        for task in todo
    }
    agents = ((task.mind.trajectory_id, act(task.need, task.mind)) for task in todo)
    work_in_rounds(
        agents,
        search_many,
        lambda name, step, hits: recorders[name].add(step, hits),
        progress=progress,
    )
    return {name: recorder.events for name, recorder in recorders.items()}


def work_in_rounds(
    agents: Iterable[tuple[T, Agent]],
    search_many: SearchMany,
    on_step: Callable[[T, Step, Sequence[Hit]], None],
    *,
    progress: Progress = lambda done, of: None,
) -> None:
    """Run all agents to their ends; answer waiting searches in batches.

    Args:
        agents: each with the first argument of ``on_step``.
        on_step: called with every step of an agent in order, and with the hits of an ``Asked``; the
            steps of different agents are mixed.

    Raises:
        Whatever ``search_many`` or ``on_step`` raises.
    """
    waiting: list[tuple[T, Agent, Asked]] = []

    def advance(name: T, agent: Agent, hits: Sequence[Hit] | None) -> None:
        step = next(agent) if hits is None else agent.send(hits)
        while not isinstance(step, Asked | Ended):
            on_step(name, step, ())
            step = next(agent)
        if isinstance(step, Asked):
            waiting.append((name, agent, step))
        else:
            on_step(name, step, ())

    count = 0
    for name, agent in agents:
        count += 1
        advance(name, agent, None)
    while waiting:
        some = waiting[:AT_ONCE]
        del waiting[:AT_ONCE]
        found = search_many([asked.query for *_, asked in some])
        for (name, agent, asked), hits in zip(some, found, strict=True):
            on_step(name, asked, hits)
            advance(name, agent, hits)
        progress(count - len(waiting), count)
