"""Chats with tool calls in the text: ``<think>``, ``<tool_call>``, ``<answer>``.

Tongyi DeepResearch and WebDancer write them; a result is a user's message in ``<tool_response>``.
"""

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from streams.importing.readers import Asked, Fit, Trajectory
from streams.importing.readers.chat import (
    Message,
    Result,
    Text,
    Turn,
    Use,
    is_message,
    messages_in,
    read_messages,
    text_of,
)

_SURE = ("<tool_call>", "<tool_response>")
_TAG = re.compile(r"<(think|tool_call|answer)>(.*?)(?:</\1>|\Z)", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>(.*?)(?:</tool_response>|\Z)", re.DOTALL)


class _React:
    def fits(self, value: Any) -> Fit:
        messages = (one for one in messages_in(value) if one["role"] != "system")
        texts = [text for one in messages if isinstance(text := one.get("content"), str)]
        return 2 if any(tag in text for text in texts for tag in _SURE) else 0

    def key(self, value: Any) -> Hashable:
        return "conversation" if is_message(value) else None

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        yield read_messages(values, _of_message, live=False)


reader = _React()


def _of_message(message: Message) -> Iterator[Turn]:
    text = text_of(message.get("content"))
    if message["role"] == "assistant":
        yield from _of_text(text)
    elif message["role"] in ("user", "tool"):
        responses = _RESPONSE.findall(text)
        yield from (Result(None, response.strip()) for response in responses)
        if not responses:
            yield Asked(text) if message["role"] == "user" else Result(None, text.strip())


def _of_text(text: str) -> Iterator[Turn]:
    if "<think>" not in text and "</think>" in text:
        text = f"<think>{text}"
    end = 0
    for tag in _TAG.finditer(text):
        yield Text(text[end : tag.start()].strip())
        end = tag.end()
        content = tag[2].strip()
        if tag[1] == "tool_call":
            yield _use(content)
        else:
            yield Text(content, thought=tag[1] == "think")
    yield Text(text[end:].strip())


def _use(content: str) -> Use:
    """A call; text after its JSON (the code of a Python tool) is ignored."""
    try:
        call, _ = json.JSONDecoder().raw_decode(content)
    except ValueError:
        call = None
    if not isinstance(call, dict):
        # Truncated, or not JSON: the normaliser decides which by the result.
        return Use(None, "tool_call", content if content.startswith("{") else "{" + content)
    return Use(None, str(call.get("name")), call.get("arguments"))
