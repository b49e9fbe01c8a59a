"""Chats in which the tools are called in the text: ``<think>``, ``<tool_call>``, ``<answer>``.

So write Tongyi DeepResearch and WebDancer; a result comes as a user's message in
``<tool_response>``.
"""

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from schemas.errors import InvalidRecordError
from streams.importing.readers.chat import (
    Message,
    Result,
    Say,
    Turn,
    Use,
    conversation,
    is_message,
    messages_of,
    text_of,
)
from streams.importing.steps import Asked, Fit, Trajectory

_SURE = ("<tool_call>", "<tool_response>")
_TAG = re.compile(r"<(think|tool_call|answer)>(.*?)(?:</\1>|\Z)", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>(.*?)(?:</tool_response>|\Z)", re.DOTALL)


class _React:
    def fits(self, value: Any) -> Fit:
        messages = [value] if is_message(value) else messages_of(value)
        contents = (
            message.get("content") for message in messages or () if message["role"] != "system"
        )
        texts = [content for content in contents if isinstance(content, str)]
        return 2 if any(tag in text for text in texts for tag in _SURE) else 0

    def key(self, value: Any) -> Hashable:
        return "conversation" if is_message(value) else None

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        value = values if is_message(values[0]) else values[0]
        messages = messages_of(value)
        if messages is None:
            raise InvalidRecordError("has no messages")
        turns = (turn for message in messages for turn in _of_message(message))
        yield conversation(value, turns, live=False)


reader = _React()


def _of_message(message: Message) -> Iterator[Turn]:
    text = text_of(message.get("content"))
    if message["role"] == "assistant":
        yield from _said(text)
    elif message["role"] in ("user", "tool"):
        responses = _RESPONSE.findall(text)
        yield from (Result(None, response.strip()) for response in responses)
        if not responses:
            yield Asked(text) if message["role"] == "user" else Result(None, text.strip())


def _said(text: str) -> Iterator[Turn]:
    if "<think>" not in text and "</think>" in text:
        text = f"<think>{text}"
    end = 0
    for tag in _TAG.finditer(text):
        yield Say(text[end : tag.start()].strip())
        end = tag.end()
        content = tag[2].strip()
        if tag[1] == "tool_call":
            yield _use(content)
        else:
            yield Say(content, thought=tag[1] == "think")
    yield Say(text[end:].strip())


def _use(content: str) -> Use:
    """A call; what follows its JSON (the code of a Python tool) is left out."""
    try:
        call, _ = json.JSONDecoder().raw_decode(content)
    except ValueError:
        call = None
    if not isinstance(call, dict):
        # Broken off, or no JSON: the normaliser decides by the result which of the two.
        return Use(None, "tool_call", content if content.startswith("{") else "{" + content)
    return Use(None, str(call.get("name")), call.get("arguments"))
