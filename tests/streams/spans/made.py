"""Spans made by hand, as OTLP's JSON."""

import base64
import json
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.streams.importing.logs import HELPED, PLAN, REJECTED

TRACE = "0af7651916cd43dd8448eb211c80319c"


def value(of: Any) -> dict[str, Any]:
    """OTLP's AnyValue."""
    match of:
        case bool():
            return {"boolValue": of}
        case int():
            return {"intValue": str(of)}
        case float():
            return {"doubleValue": of}
        case list():
            return {"arrayValue": {"values": [value(one) for one in of]}}
        case dict():
            pairs = [{"key": name, "value": value(one)} for name, one in of.items()]
            return {"kvlistValue": {"values": pairs}}
        case None:
            return {}
    return {"stringValue": of}


def attributes(of: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes of a span."""
    return [{"key": name, "value": value(one)} for name, one in of.items()]


def span(
    number: int, parent: int = 0, at: tuple[int, int] | None = None, **fields: Any
) -> dict[str, Any]:
    """A span; ``number`` is its id, ``at`` its start and end in seconds.

    Other fields are OTLP's, with ``attributes`` and each event's as a dict.
    """
    start, end = at or (number, number)
    events = [
        {"name": name, "attributes": attributes(its)} for name, its in fields.pop("events", [])
    ]
    made = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": "span",
        "startTimeUnixNano": str(start * 10**9),
        "endTimeUnixNano": str(end * 10**9),
        "attributes": attributes(fields.pop("attributes", {})),
        "events": events,
    }
    return made | ({"parentSpanId": f"{parent:016x}"} if parent else {}) | fields


def request(*spans: dict[str, Any], scope: str = "made") -> dict[str, Any]:
    """One ExportTraceServiceRequest."""
    scoped = {"scope": {"name": scope}, "spans": list(spans)}
    return {"resourceSpans": [{"scopeSpans": [scoped]}]}


def protobuf(line: str) -> bytes:
    """A request of OTLP's JSON in protobuf."""

    def with_bytes(value: Any) -> Any:
        if isinstance(value, list):
            return [with_bytes(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            name: base64.b64encode(bytes.fromhex(one)).decode()
            if name in ("traceId", "spanId", "parentSpanId")
            else with_bytes(one)
            for name, one in value.items()
        }

    message = ParseDict(with_bytes(json.loads(line)), ExportTraceServiceRequest())
    return bytes(message.SerializeToString())


# -- GenAI -----------------------------------------------------------------------------------------


def agent(number: int, parent: int = 0, at: tuple[int, int] = (1, 1000), **more: Any) -> Any:
    """An agent span."""
    return genai(number, parent, at, "invoke_agent", **{"gen_ai.agent.name": "a"} | more)


def model(number: int, parent: int, at: tuple[int, int], text: str, *calls: str) -> Any:
    """A model's span; ``calls`` are names of tools."""
    parts: list[dict[str, Any]] = [{"type": "text", "content": text}] * bool(text)
    parts += [{"type": "tool_call", "name": name, "arguments": {}} for name in calls]
    messages = json.dumps([{"role": "assistant", "parts": parts}])
    more = {"gen_ai.request.model": "m", "gen_ai.output.messages": messages}
    return genai(number, parent, at, "chat", **more)


def tool(number: int, parent: int, at: tuple[int, int], name: str, given: Any, result: Any) -> Any:
    """A tool's span."""
    more = {
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.arguments": json.dumps(given) if given is not None else None,
        "gen_ai.tool.call.result": result if isinstance(result, str) else json.dumps(result),
    }
    return genai(number, parent, at, "execute_tool", **more)


def retrieval(number: int, parent: int, at: tuple[int, int], query: str, ids: list[Any]) -> Any:
    """A retriever's span."""
    documents = json.dumps([{"id": one, "score": 0.5} for one in ids])
    more = {"gen_ai.retrieval.query.text": query, "gen_ai.retrieval.documents": documents}
    return genai(number, parent, at, "retrieval", **more)


def genai(number: int, parent: int, at: tuple[int, int], operation: str, **more: Any) -> Any:
    """A span with an operation's name."""
    given = {"gen_ai.operation.name": operation} | more
    named = {name: one for name, one in given.items() if one is not None}
    return span(number, parent, at, attributes=named)


def ids(*doc_ids: str) -> list[dict[str, str]]:
    """A result of a search."""
    return [{"id": doc_id} for doc_id in doc_ids]


NEED_TRACE = [
    agent(1, at=(1, 100)),
    model(2, 1, (2, 3), PLAN, "search"),
    tool(3, 1, (4, 5), "search", {"query": "harbour lamp year"}, ids("d1", "d2", "d3")),
    model(4, 1, (6, 7), "", "open_document"),
    tool(5, 1, (8, 9), "open_document", {"doc_id": "d1"}, "painted in 1902"),
    model(6, 1, (10, 11), REJECTED, "search"),
    tool(7, 1, (12, 13), "search", {"query": "harbour lamp lit"}, ids("d4", "d2")),
    model(8, 1, (14, 15), "", "open_document"),
    tool(9, 1, (16, 17), "open_document", {"doc_id": "d2"}, "lit in 1871"),
    model(10, 1, (18, 19), f"<think>{HELPED}</think>1871"),
]
"""The need of the importing tests."""
