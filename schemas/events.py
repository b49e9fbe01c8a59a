"""Trajectory events: what agents publish (topic ``trajectory-events``, key ``trajectory_id``).

A trajectory is one agent's work on one task. It is numbered or unnumbered as a whole:

- numbered: ``seq`` numbers its events 0, 1, 2, …; the client sends seq 0 first;
- unnumbered: no event has a ``seq``; it begins with a search, and its order is that of its
  partition. An event with an ``event_id`` that it has already is a repeat; gaps cannot be seen.

One search event is one query: a tool that runs several publishes several.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

import orjson
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from schemas.base import (
    Change,
    Contract,
    Count,
    DocId,
    Moment,
    Tenant,
    TrajectoryId,
    Version,
    decode_change,
)
from schemas.base import describe as describe
from schemas.errors import InvalidReason, InvalidRecordError

SCHEMA_VERSION = "1.0"
"""Major.minor. A newer minor version is read without its unknown fields; a newer major is not."""

_MAJOR, _MINOR = (int(part) for part in SCHEMA_VERSION.split("."))

Verdict = Literal["relevant", "irrelevant", "unknown"]
Outcome = Literal["correct", "incorrect", "unknown"]


class Agent(Contract):
    """Who acted: ``model`` groups agents of one verbosity for the intensity weights."""

    name: Annotated[str, Field(max_length=128)]
    model: Annotated[str, Field(max_length=128)]


class Hit(Contract):
    """One result of a search, as the agent saw it; rank 1 is the first."""

    doc_id: DocId
    rank: Annotated[int, Field(ge=1, le=2**31 - 1)]
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None


class Envelope(Contract):
    """What every event carries."""

    event_id: Annotated[str, Field(min_length=1, max_length=256)]
    trajectory_id: TrajectoryId
    seq: Annotated[
        Count | None, Field(description="0, 1, 2, … in a trajectory; absent in an unnumbered one")
    ] = None
    occurred_at: Moment
    agent: Agent
    tenant: Tenant = ""
    retriever_version: Version | None = None
    schema_version: Annotated[str, Field(pattern=r"^\d{1,6}\.\d{1,6}$")] = SCHEMA_VERSION


def not_blank(query: str) -> str:
    """A validator that refuses a query without words."""
    if not query.strip():
        raise PydanticCustomError("blank", "a query must not be blank")
    return query


class Search(Envelope):
    """One query and the hits that the agent saw, in rank order."""

    type: Literal["search"] = "search"
    query: Annotated[str, AfterValidator(not_blank), Field(json_schema_extra={"pattern": r"\S"})]
    hits: tuple[Hit, ...]


class Browse(Envelope):
    """The agent opened a document."""

    type: Literal["browse"] = "browse"
    doc_id: DocId


class Reasoning(Envelope):
    """What the agent thought.

    ``about`` is the document of the browse right before it, if the reasoning is about that browse.
    A publisher of an unnumbered trajectory may not have the document: ``about_previous`` (true)
    stands for it, and is ignored if no browse is right before the reasoning on the log.

    ``tokens`` is for an agent that withholds the text or counts by itself; ``verdict`` for one that
    decides itself whether the document helped, for instance because its text must not leave it.
    """

    type: Literal["reasoning"] = "reasoning"
    text: str | None = None
    tokens: Count | None = None
    verdict: Literal["relevant", "irrelevant"] | None = None
    about: DocId | None = None
    about_previous: bool | None = None


class Answer(Envelope):
    """The agent answered its task."""

    type: Literal["answer"] = "answer"
    text: str | None = None


class End(Envelope):
    """The trajectory is over."""

    type: Literal["end"] = "end"
    outcome: Outcome = "unknown"


SESSION_END = "session-end"


class Other(Envelope):
    """A step that means nothing to mining, except that it ends a run of browses.

    The name ``session-end`` is no step: the client of a server has closed its session. If it is the
    last event of an unnumbered trajectory, that closes after a sixth of the idle time.
    """

    type: Literal["other"] = "other"
    name: Annotated[str, Field(max_length=256)]


Event = Search | Browse | Reasoning | Answer | End | Other
"""One model a type, told apart by ``type``."""

adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Parsed(Generic[E]):
    """An event, and how many fields of a newer minor version were left out."""

    event: E
    unknown_fields: int = 0


def parse(value: bytes) -> Parsed[Event]:
    """Read the value of a trajectory-events record.

    Raises:
        InvalidRecordError: it is not JSON, not an event, or of another major version; its reason is
            malformed_json, unknown_type, missing_field, invalid_field or unsupported_version.
    """
    return parse_with(adapter, value)


def parse_with(adapter: TypeAdapter[E], value: bytes) -> Parsed[E]:
    """Read the value of a record whose contract is ``adapter``; for errors see :func:`parse`."""
    try:
        event = adapter.validate_json(value)
    except ValidationError as error:
        return _parse_newer(adapter, value, error)
    _require_version(getattr(event, "schema_version", SCHEMA_VERSION))
    return Parsed(event)


def _parse_newer(adapter: TypeAdapter[E], value: bytes, error: ValidationError) -> Parsed[E]:
    """A second look at what did not validate: a newer minor version may have added fields."""
    details = error.errors(include_url=False, include_context=False)
    version = _declared_version(value)
    if version is not None:
        _require_version(version)
        if int(version.split(".")[1]) > _MINOR:
            unknown = [item for item in details if item["type"] == "extra_forbidden"]
            if len(unknown) == len(details):
                return Parsed(adapter.validate_json(value, extra="ignore"), len(unknown))
    raise InvalidRecordError(describe(details), reason=_reason(details)) from error


def _declared_version(value: bytes) -> str | None:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    version = found.get("schema_version") if isinstance(found, dict) else None
    major, _, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    return version if major.isdecimal() and minor.isdecimal() else None


def _require_version(version: str) -> None:
    if int(version.split(".")[0]) != _MAJOR:
        raise InvalidRecordError(
            f"schema_version {version} is of another major version than {SCHEMA_VERSION}",
            reason="unsupported_version",
        )


_REASONS: dict[str, InvalidReason] = {
    "json_invalid": "malformed_json",
    "union_tag_invalid": "unknown_type",
    "union_tag_not_found": "missing_field",
    "missing": "missing_field",
}


def _reason(details: Iterable[ErrorDetails]) -> InvalidReason:
    return next(
        (_REASONS[item["type"]] for item in details if item["type"] in _REASONS), "invalid_field"
    )


CE_SOURCE_PREFIX = "retrail/agents/"
CONTENT_TYPE = "application/json"


def cloudevents(event: Envelope, event_type: str) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 attributes in Kafka's binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        ("ce_type", f"retrail.trajectory.{event_type}".encode()),
        ("ce_source", f"{CE_SOURCE_PREFIX}{event.agent.name}".encode()),
        ("ce_time", event.occurred_at.isoformat().encode()),
        ("content-type", CONTENT_TYPE.encode()),
    ]


_TOKEN = re.compile(r"\w+|[^\w\s]")


def count_tokens(text: str) -> int:
    """Number of runs of word characters and single other marks.

    >>> count_tokens("It doesn't help.")
    6
    """
    return len(_TOKEN.findall(text))


# -- Topic outcomes --------------------------------------------------------------------------------

ReportedOutcome = Literal["correct", "incorrect"]


class OutcomeReport(Contract):
    """An outcome that became known after the trajectory's ``end`` (compacted topic ``outcomes``).

    The last report about a trajectory replaces the outcome of its ``end`` event; an empty value
    withdraws it. Reports are kept as long as pairs are: a run may replay a pair of any age.

    Attributes:
        trajectory_id: as in its events; the record's key too.
        outcome: whether its answer was right.
        reported_at: when the report was made.
        source: who reports it, for instance ``user`` or the name of an evaluation.
    """

    trajectory_id: TrajectoryId
    outcome: ReportedOutcome
    reported_at: Moment
    source: Annotated[str, Field(max_length=128)] = ""


def read_outcome(key: bytes | None, value: bytes | None) -> Change[OutcomeReport]:
    """The change that a record of ``outcomes`` makes; never raises."""
    return decode_change(OutcomeReport, "trajectory_id", key, value)
