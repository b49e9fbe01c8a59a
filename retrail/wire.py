"""Events as bytes, by the contract of trajectory-events (``schemas.events``).

Functions of plain values. They check what the contract checks, so that an error shows in the agent
instead of in the dead-letter queue; messages never contain a query, a reasoning or an answer.
"""

import json
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retrail.errors import InvalidEventError

SCHEMA_VERSION = "1.0"
MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Largest record batch that the topic takes (``schemas.topics``)."""

BATCH_OVERHEAD = 256
"""Upper bound of a batch's bytes besides keys, values and headers, for one record."""

MAX_INT = 2**31 - 1
OUTCOMES = ("correct", "incorrect", "unknown")
REPORTED = ("correct", "incorrect")
VERDICTS = ("relevant", "irrelevant")

Data = dict[str, Any]
"""The fields of an event besides its envelope."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The fields that all events of a trajectory share.

    Raises:
        InvalidEventError: a value breaks the contract.

    >>> Sender("task-17", "my-agent", "qwen3-30b", "").trajectory_id
    'task-17'
    """

    trajectory_id: str
    agent: str
    model: str
    tenant: str

    def __post_init__(self) -> None:
        text_of("trajectory_id", self.trajectory_id, shortest=1, longest=512)
        for name in ("agent", "model", "tenant"):
            text_of(name, getattr(self, name), longest=128)


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record with one event.

    Attributes:
        seq: its number; ``None`` in an unnumbered trajectory, and for an outcome.
        event: its type; ``"outcome"`` for a later outcome.
    """

    trajectory_id: str
    seq: int | None
    event: str
    value: bytes
    headers: list[tuple[str, str | bytes | None]]

    @property
    def key(self) -> bytes:
        """The trajectory's id: its events are on one partition, in order."""
        return _utf8(self.trajectory_id)

    @property
    def size(self) -> int:
        """Bytes that count against the topic's limit."""
        headers = sum(len(name) + len(value or b"") + 10 for name, value in self.headers)
        return len(self.key) + len(self.value) + headers + BATCH_OVERHEAD


def record(
    sender: Sender,
    *,
    kind: str,
    data: Data,
    seq: int | None,
    event_id: str,
    at: datetime,
    retriever_version: int | None,
) -> Record:
    """One event as a record: JSON value, CloudEvents headers in Kafka's binary mode.

    Raises:
        InvalidEventError: the record is above :data:`MAX_EVENT_BYTES`.
    """
    moment = at.isoformat()
    event: Data = {
        "type": kind,
        "event_id": event_id,
        "trajectory_id": sender.trajectory_id,
        "occurred_at": moment,
        "agent": {"name": sender.agent, "model": sender.model},
        "tenant": sender.tenant,
        "schema_version": SCHEMA_VERSION,
    }
    if seq is not None:
        event["seq"] = seq
    if retriever_version is not None:
        event["retriever_version"] = retriever_version
    headers = _headers(f"retrail.trajectory.{kind}", event_id, sender.agent, moment)
    result = Record(sender.trajectory_id, seq, kind, _json(event | data), headers)
    if (size := result.size) > MAX_EVENT_BYTES:
        raise InvalidEventError(
            f"This {kind} event has {size:,} bytes; the topic takes {MAX_EVENT_BYTES:,}. "
            "Publish fewer hits, or withhold or shorten the text.",
            size=size,
        )
    return result


def outcome_report(
    trajectory_id: object,
    outcome: object,
    *,
    source: object,
    agent: str,
    report_id: str,
    at: datetime,
) -> Record:
    """A later outcome as a record of the topic outcomes (``schemas.events``).

    >>> at = datetime.fromisoformat("2026-11-23T10:00:00+00:00")
    >>> outcome_report("task-17", "correct", source="user", agent="me", report_id="1", at=at).key
    b'task-17'
    """
    moment = at.isoformat()
    report: Data = {
        "trajectory_id": text_of("trajectory_id", trajectory_id, shortest=1, longest=512),
        "outcome": one_of("outcome", outcome, REPORTED),
        "reported_at": moment,
        "source": text_of("source", source, longest=128),
    }
    headers = _headers("retrail.outcome", report_id, agent, moment)
    return Record(report["trajectory_id"], None, "outcome", _json(report), headers)


def search(query: object, hits: Iterable[object]) -> Data:
    """A search; see :func:`hit_of` for what a hit may be.

    >>> search("when", ["a", ("b", 0.5)])["hits"][1]
    {'doc_id': 'b', 'rank': 2, 'score': 0.5}
    """
    return {
        "query": query_of(query),
        "hits": [hit_of(hit, rank) for rank, hit in enumerate(hits, start=1)],
    }


def hit_of(hit: object, rank: int) -> Data:
    """One hit: a document id, a pair (id, score), a mapping or an object with ``doc_id``.

    A mapping or object may also have ``rank`` and ``score``; the default rank is the position in
    the list. A score that is not finite is omitted.
    """
    score: object = None
    if isinstance(hit, Mapping):
        doc_id = hit.get("doc_id")
        score, rank = hit.get("score"), default(hit.get("rank"), rank)
    elif hasattr(hit, "doc_id"):
        doc_id = hit.doc_id
        score, rank = getattr(hit, "score", None), default(getattr(hit, "rank", None), rank)
    elif isinstance(hit, tuple | list):
        if len(hit) != 2:
            raise InvalidEventError(f"A hit is a pair (doc_id, score), not {len(hit)} values.")
        doc_id, score = hit
    else:
        doc_id = hit
    result: Data = {"doc_id": doc_id_of(doc_id), "rank": int_of("rank", rank, 1)}
    if score is not None:
        if not isinstance(score, numbers.Real) or isinstance(score, bool):
            raise InvalidEventError(f"A score is a number, not {type(score).__name__}.")
        if math.isfinite(number := float(score)):
            result["score"] = number
    return result


def browse(doc_id: object) -> Data:
    """The opening of a document."""
    return {"doc_id": doc_id_of(doc_id)}


def reasoning(text: str | None, tokens: object, verdict: object, about: object = None) -> Data:
    """A reasoning; ``about``: the document that it names."""
    result: Data = {}
    if text is not None:
        result["text"] = text
    if tokens is not None:
        result["tokens"] = int_of("tokens", tokens, 0)
    if verdict is not None:
        result["verdict"] = one_of("verdict", verdict, VERDICTS)
    if about is not None:
        result["about"] = doc_id_of(about)
    return result


def answer(text: str | None) -> Data:
    """The answer, with or without its text."""
    return {} if text is None else {"text": text}


def end(outcome: object) -> Data:
    """The end of a trajectory."""
    return {"outcome": one_of("outcome", outcome, OUTCOMES)}


def other(name: object) -> Data:
    """A step that only ends a run of browses."""
    return {"name": text_of("name", name, longest=256)}


def query_of(value: object) -> str:
    """A query, with more than white space."""
    query = text_of("query", value)
    if not query.strip():
        raise InvalidEventError("query is blank.")
    return query


def doc_id_of(value: object) -> str:
    """A document id: 1 to 512 characters, or an integer."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))
    return text_of("doc_id", value, shortest=1, longest=512)


def text_of(name: str, value: object, *, shortest: int = 0, longest: int | None = None) -> str:
    """``value``, if it is a string of valid length; ``name`` is for the error message."""
    if not isinstance(value, str):
        raise InvalidEventError(f"{name} is a string, not {type(value).__name__}.")
    if len(value) < shortest:
        raise InvalidEventError(f"{name} is empty.")
    if longest is not None and len(value) > longest:
        raise InvalidEventError(f"{name} has {len(value)} characters; at most {longest} are taken.")
    return value


def int_of(name: str, value: object, smallest: int) -> int:
    """``value``, if it is a whole number from ``smallest`` to 2³¹ − 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise InvalidEventError(f"{name} is a whole number, not {type(value).__name__}.")
    number = int(value)
    if not smallest <= number <= MAX_INT:
        raise InvalidEventError(f"{name} is {number}; it must be {smallest} to {MAX_INT}.")
    return number


def version_of(value: object) -> int | None:
    """A retriever's version, or nothing."""
    return None if value is None else int_of("retriever_version", value, 1)


def default(value: Any, otherwise: Any) -> Any:
    """``value``, unless it is absent."""
    return otherwise if value is None else value


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """``value``, if it is one of ``choices``."""
    if value not in choices:
        raise InvalidEventError(f"{name} must be {' or '.join(choices)}.")
    return str(value)


def _headers(
    kind: str, event_id: str, agent: str, moment: str
) -> list[tuple[str, str | bytes | None]]:
    """CloudEvents attributes in Kafka's binary mode."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_type": kind,
        "ce_source": f"retrail/agents/{agent}",
        "ce_time": moment,
        "content-type": "application/json",
    }
    return [(name, _utf8(value)) for name, value in attributes.items()]


def _json(data: Data) -> bytes:
    return _utf8(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def _utf8(text: str) -> bytes:
    # A lone surrogate, which models do produce, has no UTF-8; it becomes a question mark.
    return text.encode("utf-8", "replace")
