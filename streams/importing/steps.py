"""What a reader makes of a file: trajectories as steps, before anything is known of their tools."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Thought:
    """What the agent thought, or said before it called a tool."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool.

    Attributes:
        tool: name, as the log has it.
        arguments: JSON in a string, or its value.
        result: text, or a JSON value; nothing if the log has none.
        doc_ids: ids of the documents that the format gives beside the result.
        failed: the format marks the result as an error.
    """

    tool: str
    arguments: Any = None
    result: Any = None
    doc_ids: tuple[str, ...] | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that the agent made at once: it saw no result before it had made them all."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The agent answered."""

    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A user spoke; after an answer this begins the next part of a session."""

    text: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A step that the reader does not know; the miner only sees that it was there."""

    name: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Nothing after this can be read."""

    problem: str


Step = Thought | Calls | Answered | Asked | Unknown | Fault


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One trajectory, or one session, of a file.

    Attributes:
        steps: in order.
        own_id: the format's own id, unique among all trajectories; otherwise the id follows from
            the content where it is empty.
        label: put before an id that follows from the content: the id of the task, for instance.
        agent: name of the agent.
        model: name of its model; of a path the last part counts.
        live: the session may grow, so it ends only with an answer.
    """

    steps: list[Step]
    own_id: str = ""
    label: str = ""
    agent: str = ""
    model: str = ""
    live: bool = False


SKIP = object()
"""Key of a record that belongs to no trajectory."""

Fit = Literal[0, 1, 2]
"""How sure a reader is of a record: it is not of this format, may be, is."""


class Reader(Protocol):
    """Reads one format.

    A package adds one as an entry point of the group ``retrail.importers``; see docs/import.md.
    """

    def fits(self, value: Any) -> Fit:
        """Whether a record (a JSON document, line, or item of an array) is of this format."""

    def key(self, value: Any) -> Hashable:
        """Neighbouring records with equal keys are read together.

        ``None``: this record is read alone; :data:`SKIP`: it is left out.
        """

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        """The trajectories of records that are read together.

        Raises:
            InvalidRecordError: they are not of this format.
        """
