"""A fleet of scripted agents at work: searching the live retriever, publishing what they do."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from retrail import Publisher, PublishError, Timeout, Trajectory
from schemas.errors import RetrailError
from schemas.settings import Settings
from serving.search.retriever import Retriever, SearchResult
from simulation.agents.scripted import (
    AGENT_NAME,
    Answered,
    Asked,
    Browsed,
    Ended,
    Hit,
    Mind,
    Step,
    Thought,
    act,
    perform,
)
from simulation.corpora.corpus import Need

THREADS = 4
HITS = 10
INTERVAL = 0.2
FLUSH_SECONDS = 60.0


class NotPublished(RetrailError):
    """Events of the agents did not reach the broker."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One agent and what it is to find out."""

    need: Need
    mind: Mind


@dataclass(frozen=True, slots=True)
class Shift:
    """What a fleet did.

    Attributes:
        events: published and acknowledged.
        correct: agents that answered rightly.
    """

    events: int
    correct: int


def assignments(needs: Sequence[Need], agents: int, *, seed: int, turn: int) -> list[Assignment]:
    """Deal needs to agents; where there are fewer needs than agents, some need has several."""
    dealt = []
    for number in range(agents):
        again, index = divmod(number, len(needs))
        need = needs[index]
        dealt.append(Assignment(need, Mind.of(seed, turn, need.need_id, again)))
    return dealt


def work(
    todo: Sequence[Assignment],
    retriever: Retriever,
    settings: Settings,
    *,
    on_progress: Callable[[int, int], None],
) -> Shift:
    """Let every agent do its work, a few at a time; returns when all events are acknowledged.

    Args:
        todo: what there is to do.
        retriever: the live one; threads share it.
        settings: where to publish.
        on_progress: called several times a second with how many agents are done, and how many
            there are; what it raises stops the others.

    Raises:
        NotPublished: the broker did not take all events.
        RetrailError: the retriever failed.
    """
    try:
        return _work(todo, retriever, settings, on_progress)
    except PublishError as error:
        raise NotPublished(f"The agents could not publish what they did. {error}") from error


def _work(
    todo: Sequence[Assignment],
    retriever: Retriever,
    settings: Settings,
    on_progress: Callable[[int, int], None],
) -> Shift:
    with Publisher(
        AGENT_NAME,
        bootstrap=settings.kafka_bootstrap,
        topic_prefix=settings.topic_prefix,
        on_error="raise",
        timeout=Timeout(block=FLUSH_SECONDS),
    ) as publisher:
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="agent")
        try:
            futures = [pool.submit(_one, each, retriever, publisher) for each in todo]
            outcomes = _results(futures, on_progress)
        finally:
            pool.shutdown(cancel_futures=True)
        if publisher.flush(FLUSH_SECONDS):
            raise NotPublished(
                f"Kafka did not take the agents' events within {FLUSH_SECONDS:.0f} s."
            )
    return Shift(publisher.stats.delivered, sum(outcome == "correct" for outcome in outcomes))


def _results(futures: Sequence[Future[str]], on_progress: Callable[[int, int], None]) -> list[str]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, INTERVAL, FIRST_EXCEPTION)
        for future in done:
            future.result()
        on_progress(len(futures) - len(pending), len(futures))
    return [future.result() for future in futures]


def _one(task: Assignment, retriever: Retriever, publisher: Publisher) -> str:
    """One agent's whole trajectory; returns its outcome."""
    version: int | None = None
    outcome = "unknown"

    def search(query: str) -> Sequence[Hit]:
        nonlocal version
        found: SearchResult = retriever.search(query, HITS)
        version = found.retriever_version
        return found.hits

    model = task.mind.persona.model
    with publisher.trajectory(task.mind.trajectory_id, model=model) as trajectory:
        for step, hits in perform(act(task.need, task.mind), search):
            publish(trajectory, step, hits, version)
            if isinstance(step, Ended):
                outcome = step.outcome
    return outcome


def publish(trajectory: Trajectory, step: Step, hits: Sequence[Hit], version: int | None) -> None:
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
