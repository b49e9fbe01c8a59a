"""An event stream, written as agents of other formats would have logged it."""

import json
from collections.abc import Iterator
from typing import Any

from schemas.events import Answer, Browse, Event, Other, Reasoning, Search

Log = dict[str, Any]


def _call(event: Event) -> tuple[str, dict[str, Any], str] | None:
    """Tool, arguments and result of an event that is a call."""
    match event:
        case Search():
            hits = [{"id": hit.doc_id, "text": "…"} for hit in event.hits]
            return "search", {"query": event.query}, json.dumps(hits)
        case Browse():
            return "open", {"id": event.doc_id}, "its text"
        case Other():
            return event.name, {}, "done"
    return None


def _turns(events: list[Event]) -> Iterator[tuple[str, str, Event | None, str]]:
    """Thought, spoken text and call of each message of the agent; with the call's id."""
    thought = ""
    for number, event in enumerate(events):
        match event:
            case Reasoning():
                thought = event.text or ""
            case Answer():
                yield thought, event.text or "", None, ""
                thought = ""
            case Search() | Browse() | Other():
                yield thought, "", event, f"call-{number}"
                thought = ""
    if thought:
        yield thought, "", None, ""


def openai(events: list[Event]) -> Log:
    """Chat messages."""
    messages: list[Log] = [{"role": "user", "content": "the task"}]
    for thought, text, event, call_id in _turns(events):
        message: Log = {"role": "assistant", "content": text, "reasoning_content": thought}
        messages.append(message)
        if event is not None and (call := _call(event)) is not None:
            tool, arguments, result = call
            function = {"name": tool, "arguments": json.dumps(arguments)}
            message["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
            messages.append({"role": "tool", "tool_call_id": call_id, "content": result})
    return {"messages": messages, "model": "m"}


def anthropic(events: list[Event]) -> Log:
    """Messages with blocks."""
    messages: list[Log] = [{"role": "user", "content": "the task"}]
    for thought, text, event, call_id in _turns(events):
        blocks: list[Log] = [{"type": "thinking", "thinking": thought}] if thought else []
        blocks += [{"type": "text", "text": text}] if text else []
        messages.append({"role": "assistant", "content": blocks})
        if event is not None and (call := _call(event)) is not None:
            tool, arguments, result = call
            blocks.append({"type": "tool_use", "id": call_id, "name": tool, "input": arguments})
            answer = {"type": "tool_result", "tool_use_id": call_id, "content": result}
            messages.append({"role": "user", "content": [answer]})
    return {"messages": messages, "model": "m"}


def atif(events: list[Event]) -> Log:
    """Steps with observations."""
    steps: list[Log] = [{"step_id": 1, "source": "user", "message": "the task"}]
    for thought, text, event, call_id in _turns(events):
        step: Log = {"step_id": len(steps) + 1, "source": "agent", "message": text}
        steps.append(step | ({"reasoning_content": thought} if thought else {}))
        if event is not None and (call := _call(event)) is not None:
            tool, arguments, result = call
            steps[-1]["tool_calls"] = [
                {"tool_call_id": call_id, "function_name": tool, "arguments": arguments}
            ]
            steps[-1]["observation"] = {"results": [{"source_call_id": call_id, "content": result}]}
    agent = {"name": "a", "version": "1", "model_name": "m"}
    return {"schema_version": "ATIF-v1.7", "session_id": "s", "agent": agent, "steps": steps}
