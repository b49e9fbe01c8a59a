"""A span reduced to what mining needs, in a bounded size and without message histories."""

import ast
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from retrail_runtime.otlp import RawSpan
from schemas.errors import InvalidRecordError
from streams.importing.files import json_in
from streams.importing.readers.chat import split_thought, text_of
from streams.importing.tools import at, first
from streams.spans.dialects import (
    OUTPUT_EVENTS,
    REDACTED,
    Dialect,
    Kind,
    dialect_of,
    in_order,
    kind_of,
    value_of,
)
from streams.spans.evaluations import Outcome, outcomes

Lack = Literal["no_content", "redacted", "attributes_dropped", "truncated", "too_large"]
"""Why a span has no query, result or output."""

MAX_TEXT = 100_000
"""Characters of a thought or an output; what is longer is cut."""
MAX_RESULT = 60_000
"""Characters of a result; in a longer one each string is cut to :data:`MAX_STRING`."""
MAX_STRING = 400
MAX_NAME = 256

# Each begins with a literal, so that re searches fast.
_HANDLE = re.compile(r"trajectory_id\W{1,9}[\w:]{11}\.[\w:]{11}\b")
_MARKED_ID = re.compile(r'~(?<=[^"\s]~)[\w:]{11}\.[\w:]{11}\b')


class AgentSpan(Struct, frozen=True, omit_defaults=True, rename={"span_id": "id"}, gc=False):
    """A reduced span.

    Attributes:
        start, end: ns since the epoch.
        name: of the agent or tool.
        conversation: id of the conversation or session.
        arguments, result: of a tool or a search, out of the envelopes that packages put around
            them.
        thought, text: what a model or an agent wrote.
        calls: whether the model called tools with it.
        served: the tool was answered by `retrail serve` or `retrail mcp`.
        lacks: what is missing, and why.
    """

    span_id: str
    parent_id: str
    start: int
    end: int
    kind: Kind = "other"
    dialect: str = ""
    name: str = ""
    model: str = ""
    conversation: str = ""
    arguments: Any = None
    result: Any = None
    thought: str = ""
    text: str = ""
    calls: bool = False
    failed: bool = False
    served: bool = False
    lacks: tuple[Lack, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def reduced(spans: Iterable[RawSpan], counts: Counter[str]) -> Iterator[tuple[str, AgentSpan]]:
    """The spans of a request, reduced, each with the id of its trace.

    A span of no known convention keeps its place only: its parent may be the agent's.

    Args:
        counts: of spans by dialect; ``unknown`` for those of none.
    """
    for raw in spans:
        dialect = dialect_of(raw.attributes)
        counts[dialect.name if dialect else "unknown"] += 1
        yield raw.trace_id, _reduce(raw, dialect)


def _reduce(raw: RawSpan, dialect: Dialect | None) -> AgentSpan:
    place: dict[str, Any] = {
        "span_id": raw.span_id,
        "parent_id": raw.parent_id,
        "start": raw.start,
        "end": raw.end,
        "outcomes": tuple(outcomes(raw)),
    }
    if dialect is None:
        return AgentSpan(**place)
    kind = kind_of(dialect, raw.attributes)
    place |= {
        "kind": kind,
        "dialect": dialect.name,
        "failed": raw.failed,
        "conversation": _name(raw, dialect.conversation),
    }
    return AgentSpan(**(place | _FIELDS.get(kind, _of_other)(raw, dialect)))


def _of_other(raw: RawSpan, dialect: Dialect) -> dict[str, Any]:
    name = _name(raw, dialect.agent)
    return {"name": name or ("" if raw.parent_id else raw.name[:MAX_NAME])}


def _of_tool(raw: RawSpan, dialect: Dialect) -> dict[str, Any]:
    given, returned = _content(raw, dialect.arguments), _content(raw, dialect.result)
    result, failed = _result(returned.value)
    bounded = _bounded(result)
    too_large: Lack | None = "too_large" if bounded is None and result else None
    return {
        "name": _name(raw, dialect.tool) or raw.name[:MAX_NAME],
        "arguments": _bounded(_arguments(given.value)),
        "result": bounded,
        "failed": raw.failed or failed,
        "served": _is_served(given.text) or _is_served(returned.text),
        "lacks": _unique([given.lack, returned.lack, too_large]),
    }


def _of_search(raw: RawSpan, dialect: Dialect) -> dict[str, Any]:
    given = _content(raw, dialect.query)
    found = [_content(raw, (name,)) for name in dialect.documents]
    lists = [documents for one in found if (documents := _documents(one.value))]
    with_ids = (each for each in lists if any(_has_id(document) for document in each))
    documents = next(itertools.chain(with_ids, lists), list[dict[str, Any]]())
    lack = None if documents else next((one.lack for one in found if one.lack), None)
    query = _arguments(given.value)
    if isinstance(query, dict):
        query = first(query, ("query", "query_bundle.query_str", "input")) or query
    return {
        "name": "retriever",
        "arguments": {"query": query} if isinstance(query, str) else query,
        "result": _bounded(documents),
        "served": any("retriever_version" in one["metadata"] for one in documents)
        or any(_is_served(one.text) for one in found),
        "lacks": _unique([given.lack, lack]),
    }


def _is_served(text: str) -> bool:
    """Whether `retrail serve` or `retrail mcp` answered it: a handle beside the hits or in ids."""
    return _HANDLE.search(text) is not None or _MARKED_ID.search(text) is not None


def _of_model(raw: RawSpan, dialect: Dialect) -> dict[str, Any]:
    written = _content(raw, (*dialect.outputs, *dialect.text))
    messages = [*_messages_of_events(raw)] if written.value is None else written.value
    thought, text, calls = _written(messages)
    lacks = () if thought or text or calls or raw.failed else _unique([written.lack])
    return {
        "name": _name(raw, dialect.agent),
        "model": _name(raw, dialect.model),
        "thought": thought[:MAX_TEXT],
        "text": text[:MAX_TEXT],
        "calls": calls,
        "lacks": lacks,
    }


_FIELDS: dict[Kind, Callable[[RawSpan, Dialect], dict[str, Any]]] = {
    "agent": _of_model,
    "llm": _of_model,
    "tool": _of_tool,
    "search": _of_search,
}


# -- Contents --------------------------------------------------------------------------------------


class _Content(NamedTuple):
    """The value of an attribute, its text, and why there is none."""

    value: Any
    text: str = ""
    lack: Lack | None = None


def _content(raw: RawSpan, names: tuple[str, ...]) -> _Content:
    value = value_of(raw.attributes, names)
    if value is None:
        return _Content(None, lack="attributes_dropped" if raw.dropped else "no_content")
    if value == REDACTED:
        return _Content(None, lack="redacted")
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    parsed = _parsed(value)
    if isinstance(parsed, InvalidRecordError):
        return _Content(value, text, "truncated")
    return _Content(parsed, text)


def _parsed(value: Any) -> Any:
    """The value of JSON, or of what Python prints of a dict, in a string; else as it is."""
    found = json_in(value)
    if isinstance(found, InvalidRecordError) and value.lstrip().startswith(("{'", "['")):
        try:
            # As JSON, which has no lone surrogates, and strings alone as keys.
            return msgspec.json.decode(msgspec.json.encode(ast.literal_eval(value.strip())))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError):
            return found
    return found


def _arguments(value: Any) -> Any:
    """The arguments of a call without the envelope of LlamaIndex or Traceloop."""
    if isinstance(value, dict):
        if value.keys() <= {"args", "kwargs"}:
            return value.get("kwargs") or value.get("args")
        if "input_str" in value:
            return value.get("inputs") or _parsed(value["input_str"])
    return value


RESULTS = (
    "data.content",  # a LangChain message, OpenInference
    "output.kwargs.content",  # a LangChain message, Traceloop
    "structuredContent",  # MCP
    "raw_output",  # LlamaIndex
    "blocks",
)
"""Paths to a result within the envelopes that packages put around it."""


def _result(value: Any) -> tuple[Any, bool]:
    """A result without its envelope, and whether it is marked as an error."""
    if not isinstance(value, dict):
        return value, False
    failed = any(bool(value.get(name)) for name in ("is_error", "isError"))
    failed = failed or at(value, "data.status") == "error"
    found = first(value, RESULTS)
    if found is None:
        content = value.get("content")
        is_mcp = isinstance(content, list) and all(isinstance(part, dict) for part in content)
        found = content if is_mcp and value.keys() <= {"content", "isError", "_meta"} else value
    if isinstance(found, list) and any(_is_text(part) for part in found):
        return text_of(found), failed
    return found, failed


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str) and len(part) <= 3


def _documents(value: Any) -> list[dict[str, Any]]:
    """The documents of a retriever: id, title, score, text, metadata."""
    if isinstance(value, dict):
        value = value.get("documents")
    if not isinstance(value, list):
        return []
    found = []
    for item in value:
        item = item.get("document", item) if isinstance(item, dict) else item
        if isinstance(item, dict):
            metadata = _parsed(item.get("metadata"))
            kept = item | {"metadata": metadata if isinstance(metadata, dict) else {}}
            found.append(kept)
    return found


def _has_id(document: dict[str, Any]) -> bool:
    names = ("id", "doc_id", "metadata.doc_id", "metadata.id", "metadata.source", "metadata.url")
    return first(document, names) is not None


def _messages_of_events(raw: RawSpan) -> Iterator[Any]:
    for name, attributes in raw.events:
        found = _parsed(value_of(attributes, OUTPUT_EVENTS.get(name, ())))
        for one in found if isinstance(found, list) else [found]:
            yield {"content": one} if isinstance(one, str) else one


def _written(value: Any) -> tuple[str, str, bool]:
    """Thought and text of a model's messages, and whether they call tools."""
    if isinstance(value, str):
        value = [{"content": value}]
    thoughts, texts, calls = list[str](), list[str](), False
    for message in value if isinstance(value, list) else [value]:
        message = _parsed(message.get("message", message)) if isinstance(message, dict) else None
        if not isinstance(message, dict) or message.get("role") in ("user", "system", "tool"):
            continue
        calls = calls or bool(
            message.get("tool_calls") or at(message, "additional_kwargs.tool_calls")
        )
        for name in ("reasoning_content", "reasoning", "thinking"):
            thoughts.append(text_of(message.get(name)))
        for part in _parts(message):
            kind = part.get("type")
            text = part.get("content") or part.get("text") or part.get("thinking")
            calls = calls or kind in ("tool_call", "tool_use", "function_call")
            if isinstance(text, str):
                if kind in ("reasoning", "thinking"):
                    thoughts.append(text)
                elif kind in (None, "text", "output_text"):
                    for one in split_thought(text):
                        (thoughts if one.thought else texts).append(one.text)
    joined = ("\n\n".join(one for one in found if one.strip()) for found in (thoughts, texts))
    return next(joined), next(joined), calls


def _parts(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a message in any of the conventions."""
    found = (message.get(name) for name in ("parts", "contents", "blocks", "content"))
    content = _parsed(next((one for one in found if one), None))
    if isinstance(content, dict):
        # Flattened: a part for each number.
        content = in_order(content)
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield {"content": part}
        elif isinstance(part, dict):
            inner = part.get("message_content", part)
            yield inner if isinstance(inner, dict) else {}


# -- Bounds ----------------------------------------------------------------------------------------


def _name(raw: RawSpan, names: tuple[str, ...]) -> str:
    found = (str(raw.attributes[name]) for name in names if raw.attributes.get(name))
    return next((name[:MAX_NAME] for name in found if name != "unknown"), "")


def _bounded(value: Any) -> Any:
    """The value, with its strings cut if it is large; ``None`` if it stays large."""
    if isinstance(value, str):
        parsed = _parsed(value) if len(value) > MAX_RESULT else value
        if isinstance(parsed, str | InvalidRecordError):
            return value[:MAX_RESULT]
        value = parsed
    if value is None or len(msgspec.json.encode(value)) <= MAX_RESULT:
        return value
    cut = _cut(value)
    return cut if len(msgspec.json.encode(cut)) <= MAX_RESULT else None


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:MAX_STRING]
    if isinstance(value, list):
        return [_cut(one) for one in value]
    if isinstance(value, dict):
        return {name: _cut(one) for name, one in value.items()}
    return value


def _unique(lacks: Iterable[Lack | None]) -> tuple[Lack, ...]:
    return tuple(dict.fromkeys(lack for lack in lacks if lack is not None))
