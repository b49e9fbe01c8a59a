"""OpenAI's formats: chat messages with ``tool_calls``, and items of the Responses API."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from schemas.errors import InvalidRecordError
from streams.importing.readers import Asked, Fit, Trajectory, Unknown
from streams.importing.readers.chat import (
    Message,
    Result,
    Text,
    Turn,
    Use,
    conversation,
    is_message,
    messages_in,
    messages_of,
    split_thought,
    text_of,
)

_ITEMS = {
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "web_search_call",
    "file_search_call",
    "mcp_call",
}


class _OpenAI:
    def fits(self, value: Any) -> Fit:
        messages = messages_in(value)
        items = [value] if _is_item(value) else _items_of(value) or ()
        if any(map(_is_sure, messages)) or any(map(_is_item, items)):
            return 2
        return 1 if messages and all(map(_is_plain, messages)) else 0

    def key(self, value: Any) -> Hashable:
        """Consecutive records that are single messages or items are one conversation."""
        if is_message(value) or _is_item(value):
            return "conversation"
        return "conversation" if _is_other_item(value) else None

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        value = values[0] if self.key(values[0]) is None else values
        messages, items = messages_of(value), _items_of(value)
        if items is not None and (messages is None or any(map(_is_item, items))):
            turns = (turn for item in items for turn in _of_item(item))
        elif messages is not None:
            turns = (turn for message in messages for turn in _of_message(message))
        else:
            raise InvalidRecordError("has neither messages nor items of the Responses API")
        yield conversation(value, turns, live=True)


reader = _OpenAI()


def _is_sure(message: Message) -> bool:
    calls = message.get("tool_calls") or message.get("function_call")
    return bool(calls) or message["role"] in ("tool", "function")


def _is_plain(message: Message) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content is None or isinstance(content, str)


def _is_item(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in _ITEMS


def _is_other_item(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in ("reasoning", "message")


def _items_of(value: Any) -> list[Any] | None:
    """Items of the Responses API: a list, or the input of a request and output of a response."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return None
    holders = [value.get("request"), value, value.get("response")]
    found = [
        items
        for holder in holders
        if isinstance(holder, dict)
        for name in ("input", "items", "output")
        if isinstance(items := holder.get(name), list)
    ]
    return [item for items in found for item in items] if found else None


def _of_message(message: Message) -> Iterator[Turn]:
    match message["role"]:
        case "user":
            yield Asked(text_of(message.get("content")))
        case "assistant":
            for name in ("reasoning_content", "reasoning", "thinking"):
                yield Text(text_of(message.get(name)), thought=True)
            yield from split_thought(text_of(message.get("content")))
            calls = message.get("tool_calls") or message.get("function_call") or []
            for call in calls if isinstance(calls, list) else [calls]:
                yield _use(call)
        case "tool" | "function":
            yield Result(message.get("tool_call_id"), _value(message.get("content")))


def _use(call: Any) -> Turn:
    if not isinstance(call, dict):
        return Unknown("tool_call")
    function = call.get("function") or call.get("custom") or call
    arguments = function.get("arguments", function.get("input"))
    return Use(call.get("id"), str(function.get("name")), arguments)


def _value(content: Any) -> Any:
    """A result: the text of a list of parts, else the value itself."""
    parts = content if isinstance(content, list) else [content]
    is_text = any(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts)
    typed = any(isinstance(part, dict) and "type" in part for part in parts)
    return text_of(content) if is_text and typed else content


def _of_item(item: Any) -> Iterator[Turn]:
    if not isinstance(item, dict):
        yield Unknown("not an object")
        return
    call_id = item.get("call_id") or item.get("id")
    match item.get("type"):
        case "reasoning":
            parts = item.get("summary") or item.get("content")
            yield Text(text_of(parts), thought=True)
        case "message" | None if "role" in item:
            if item["role"] == "assistant":
                yield from split_thought(text_of(item.get("content")))
            elif item["role"] == "user":
                yield Asked(text_of(item.get("content")))
        case "function_call" | "custom_tool_call":
            yield Use(call_id, str(item.get("name")), item.get("arguments", item.get("input")))
        case "function_call_output" | "custom_tool_call_output":
            yield Result(call_id, _value(item.get("output")))
        case "mcp_call":
            yield Use(call_id, str(item.get("name")), item.get("arguments"))
            yield Result(call_id, item.get("output"), failed=bool(item.get("error")))
        case "file_search_call":
            yield Use(call_id, "file_search", {"queries": item.get("queries")})
            yield Result(call_id, item.get("results"))
        case "web_search_call":
            yield from _web_search(call_id, item.get("action"))
        case kind:
            yield Unknown(str(kind))


def _web_search(call_id: Any, action: Any) -> Iterator[Turn]:
    action = action if isinstance(action, dict) else {}
    match action.get("type"):
        case "open_page":
            yield Use(call_id, "open_page", {"url": action.get("url")})
        case "find_in_page" | "find":
            yield Use(call_id, "find_in_page", {})
        case _:
            yield Use(call_id, "web_search", action)
    yield Result(call_id, action.get("sources"))
