"""Records what scripted agents do as events, without a broker."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from schemas import events
from schemas.events import Event
from simulation import fleet
from simulation.fleet import Assignment, Progress, SearchMany
from simulation.scripted import (
    AGENT_NAME,
    Answered,
    Asked,
    Browsed,
    Ended,
    Hit,
    Step,
    Thought,
    act,
)

WHEN = datetime(2026, 11, 1, tzinfo=UTC)
"""Time of every event: in a file no time passes."""


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
    fleet.work_in_rounds(
        agents,
        search_many,
        lambda name, step, hits: recorders[name].add(step, hits),
        progress=progress,
    )
    return {name: recorder.events for name, recorder in recorders.items()}
