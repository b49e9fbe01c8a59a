"""Import of trajectories as the LRAT project stores them.

One JSON file a trajectory; ``result`` is the list of steps, each with ``type`` (``reasoning``,
``tool_call``, ``output_text``), ``tool_name``, ``arguments`` (JSON in a string) and ``output``.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.errors import InputError
from schemas.events import (
    Agent,
    Answer,
    Browse,
    End,
    Event,
    Hit,
    Other,
    Reasoning,
    Search,
    describe,
)

BROWSE_TOOLS = frozenset({"get_document", "visit"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def events_of_file(path: Path) -> list[Event]:
    """The events of one file, numbered from 0 and closed by an ``end`` of unknown outcome.

    The ids follow from the file's bytes and the times from the numbers, so that publishing a file
    twice changes nothing.

    Raises:
        InputError: the file, and the step where there is one, that cannot be read.
    """
    try:
        content = path.read_bytes()
        trajectory = json.loads(content)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(trajectory, dict) or not isinstance(trajectory.get("result"), list):
        raise InputError(f"{path}: not an LRAT trajectory: it has no list of steps 'result'")
    query_id = trajectory.get("query_id") or path.stem
    trajectory_id = f"{query_id}-{hashlib.sha256(content).hexdigest()[:12]}"
    model = str((trajectory.get("metadata") or {}).get("model") or "unknown")
    agent = Agent(name="lrat", model=model.rstrip("/").rpartition("/")[2])
    events: list[Event] = []
    for kind, fields in (*_steps(trajectory["result"], path), (End, {"outcome": "unknown"})):
        seq = len(events)
        try:
            events.append(kind(**_envelope(trajectory_id, seq, agent), **fields))
        except ValidationError as error:
            problems = describe(error.errors())
            raise InputError(f"{path}: event {seq} breaks the contract: {problems}") from error
    return events


def _envelope(trajectory_id: str, seq: int, agent: Agent) -> dict[str, Any]:
    return {
        "event_id": f"{trajectory_id}-{seq}",
        "trajectory_id": trajectory_id,
        "seq": seq,
        "occurred_at": _EPOCH + timedelta(seconds=seq),
        "agent": agent,
    }


def _steps(steps: list[Any], path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each step as the event type that it becomes and that type's own fields."""
    about: str | None = None
    for number, step in enumerate(steps):
        if not isinstance(step, dict):
            raise InputError(f"{path}: step {number} is not an object")
        opened, about = about, None
        match step.get("type"), step.get("tool_name"):
            case "reasoning", _:
                yield Reasoning, {"text": _text(step.get("output")), "about": opened}
            case "output_text", _:
                yield Answer, {"text": _text(step.get("output"))}
            case "tool_call", "search":
                yield Search, _search(step, path, number)
            case "tool_call", tool if tool in BROWSE_TOOLS:
                about = _document(step, path, number)
                if about is not None:
                    yield Browse, {"doc_id": about}
            case kind, tool:
                yield Other, {"name": str(tool or kind)[:256]}


def _search(step: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    queries = _arguments(step, path, number).get("query", "")
    first = (queries or [""])[0] if isinstance(queries, list) else queries
    doc_ids = [
        line.removeprefix("DocID:").strip()
        for line in _text(step.get("output")).split("\n")
        if line.startswith("DocID:")
    ]
    hits = tuple(Hit(doc_id=doc_id, rank=rank) for rank, doc_id in enumerate(doc_ids, 1) if doc_id)
    return {"query": str(first), "hits": hits}


def _document(step: dict[str, Any], path: Path, number: int) -> str | None:
    found = _arguments(step, path, number).get("docid")
    if isinstance(found, list):
        found = found[0] if found else None
    return None if found is None else str(found).rpartition(":")[2] or None


def _arguments(step: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    arguments = step.get("arguments") or {}
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError as error:
        raise InputError(f"{path}: step {number}: its arguments are not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InputError(f"{path}: step {number}: its arguments are not an object")
    return parsed


def _text(output: Any) -> str:
    if isinstance(output, list):
        return " ".join(str(part) for part in output)
    return "" if output is None else str(output)
