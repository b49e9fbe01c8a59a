"""One reader for each format, and what readers make: trajectories as steps.

May import ``schemas``. ``streams.importing.importer`` chooses among the readers,
``streams.importing.normalise`` gives the calls of tools their meaning.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Struct

from schemas.errors import InvalidRecordError
from schemas.events import Outcome


class Thought(Struct, frozen=True, tag=True):
    """What the agent thought, or wrote before it called a tool."""

    text: str


class Call(Struct, frozen=True):
    """One call of a tool.

    Attributes:
        tool: name, as the log has it.
        arguments: JSON in a string, or its value.
        result: text, or a JSON value; ``None`` if the log has none.
        doc_ids: ids of the documents that the format gives beside the result.
        failed: the format marks the result as an error.
        inner: calls within this one, by which it was answered. Those of a call that searches are
            records of the same search; those of a call that neither searches nor opens count.
    """

    tool: str
    arguments: Any = None
    result: Any = None
    doc_ids: tuple[str, ...] | None = None
    failed: bool = False
    inner: tuple["Call", ...] = ()


class Calls(Struct, frozen=True, tag=True):
    """Parallel calls: the agent made them all before it saw a result."""

    calls: tuple[Call, ...]


class Answered(Struct, frozen=True, tag=True):
    """The agent answered."""

    text: str


class Asked(Struct, frozen=True, tag=True):
    """A message of a user; after an answer it begins the next part of a session."""

    text: str


class Unknown(Struct, frozen=True, tag=True):
    """A step that the reader does not support; it only ends a run of browses."""

    name: str


class Fault(Struct, frozen=True, tag=True):
    """Nothing after this can be read."""

    problem: str


Step = Thought | Calls | Answered | Asked | Unknown | Fault


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One trajectory, or one session, of a file.

    Attributes:
        steps: in order.
        own_id: the format's own id, unique among all trajectories; if it is empty, the id is a
            digest of the content.
        label: prefix of an id that is a digest: the id of the task, for instance.
        agent: name of the agent.
        model: name of its model; of a path only the last part is used.
        live: the session may grow, so it ends only with an answer.
        outcome: whether the answer was right, if the format has that.
    """

    steps: list[Step]
    own_id: str = ""
    label: str = ""
    agent: str = ""
    model: str = ""
    live: bool = False
    outcome: Outcome = "unknown"


SKIP = object()
"""Key of a record that belongs to no trajectory."""

Fit = Literal[0, 1, 2]
"""Whether a record is of a format: no, maybe, yes."""


class Reader(Protocol):
    """Reads one format.

    A package adds one as an entry point of the group ``retrail.importers``; see docs/import.md.
    """

    def fits(self, value: Any) -> Fit:
        """Whether a record (a JSON document, line, or item of an array) is of this format."""

    def key(self, value: Any) -> Hashable:
        """Neighbouring records with equal keys are read together.

        ``None``: this record is read alone; :data:`SKIP`: it is ignored.
        """

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        """The trajectories of records that are read together.

        Raises:
            InvalidRecordError: they are not of this format.
        """


@runtime_checkable
class FileReader(Protocol):
    """Reads a format in which a trajectory is spread over the records of a file."""

    def fits(self, value: Any) -> Fit:
        """As :meth:`Reader.fits`."""

    def scan(
        self, records: Iterable[tuple[str, Any]]
    ) -> Iterator[tuple[str, Trajectory | InvalidRecordError]]:
        """Place and trajectory of all records of a file, or why one cannot be read."""
