"""Shared by the formats of conversations: messages in, steps out."""

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct

from schemas.errors import InvalidRecordError
from streams.importing.readers import (
    Answered,
    Asked,
    Call,
    Calls,
    Step,
    Thought,
    Trajectory,
    Unknown,
)


class Text(Struct, frozen=True):
    """A text or a thought of the agent."""

    text: str
    thought: bool = False


class Use(Struct, frozen=True):
    """A call of a tool; its result has the same id, or comes next in order."""

    call_id: str | None
    tool: str
    arguments: Any


class Result(Struct, frozen=True):
    """The result of a call."""

    call_id: str | None
    value: Any
    failed: bool = False


Turn = Text | Use | Result | Call | Asked | Unknown
"""A :class:`Call` is a use with its result."""


def assemble(turns: Iterable[Turn]) -> list[Step]:
    """The steps of a conversation.

    Calls with nothing between them are parallel. A text before a call is a thought, the last text
    is the answer.
    """
    turns = list(turns)
    results = _results(turns)
    steps: list[Step] = []
    texts: list[Text] = []
    calls: list[Call] = []

    def end_calls() -> None:
        if calls:
            steps.append(Calls(tuple(calls)))
            calls.clear()

    def end_texts(*, before_call: bool = False) -> None:
        thoughts = [one.text for one in texts if before_call or one.thought]
        answers = [one.text for one in texts if not (before_call or one.thought)]
        texts.clear()
        if thoughts:
            steps.append(Thought("\n\n".join(thoughts)))
        if answers:
            steps.append(Answered("\n\n".join(answers)))

    for place, turn in enumerate(turns):
        match turn:
            case Text(text):
                end_calls()
                if text.strip():
                    texts.append(turn)
            case Use():
                end_texts(before_call=True)
                result = results.get(place)
                calls.append(
                    Call(
                        tool=turn.tool,
                        arguments=turn.arguments,
                        result=result.value if result else None,
                        failed=result.failed if result else False,
                    )
                )
            case Call():
                end_texts(before_call=True)
                calls.append(turn)
            case Result():
                end_calls()
            case Asked() | Unknown():
                end_calls()
                end_texts()
                steps.append(turn)
    end_calls()
    end_texts()
    return steps


def _results(turns: list[Turn]) -> dict[int, Result]:
    """The result of each call, by the call's index; some agents reuse an id in every message."""
    waiting: dict[str | None, deque[int]] = defaultdict(deque)
    results: dict[int, Result] = {}
    for place, turn in enumerate(turns):
        if isinstance(turn, Use):
            waiting[turn.call_id].append(place)
        elif isinstance(turn, Result) and waiting[turn.call_id]:
            results[waiting[turn.call_id].popleft()] = turn
    return results


_THINK = re.compile(r"\A\s*(?:<think(?:ing)?>)?(?P<thought>.*?)</think(?:ing)?>", re.DOTALL)


def split_thought(text: str) -> Iterator[Text]:
    """The text within ``<think>`` at the beginning of a text, and the rest."""
    if (found := _THINK.match(text)) is not None:
        yield Text(found["thought"].strip(), thought=True)
        text = text[found.end() :]
    yield Text(text.strip())


def text_of(content: Any) -> str:
    """The text of a content: a string, or a list of parts, some with a ``text``."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))


Message = dict[str, Any]

OWN_IDS = ("trajectory_id", "session_id", "conversation_id", "thread_id")
LABELS = ("id", "query_id", "question_id", "task_id", "instance_id")


def messages_of(value: Any) -> list[Message] | None:
    """The messages of a conversation: a list of them, or an object with such a list.

    The object has ``messages``, ``conversations`` (with ``from`` and ``value``), or an API's
    ``request`` and ``response``, whose reply is the last message.
    """
    messages: Any = value
    if isinstance(value, dict):
        request = next((part for name in ("request", "body") if (part := value.get(name))), value)
        holder = request if isinstance(request, dict) else value
        messages = holder.get("messages") or holder.get("conversations")
        reply = _reply(value.get("response"))
        if reply is not None and isinstance(messages, list):
            messages = [*messages, reply]
    if not isinstance(messages, list) or not messages:
        return None
    if not all(isinstance(one, dict) and ("role" in one or "from" in one) for one in messages):
        return None
    return [one if "role" in one else _shared(one) for one in messages]


def _reply(response: Any) -> Message | None:
    if not isinstance(response, dict):
        return None
    choices = response.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        response = choices[0].get("message")
    return response if isinstance(response, dict) and "role" in response else None


_ROLES = {"human": "user", "gpt": "assistant", "observation": "user", "function": "tool"}


def _shared(message: Message) -> Message:
    speaker = str(message["from"])
    return {"role": _ROLES.get(speaker, speaker), "content": message.get("value")}


_CONTENTS = ("content", "tool_calls", "function_call")


def is_message(value: Any) -> bool:
    """Whether a record is a single message; its conversation is spread over records."""
    return isinstance(value, dict) and "role" in value and not value.keys().isdisjoint(_CONTENTS)


def messages_in(record: Any) -> list[Message]:
    """The messages of a record: a conversation, or one message; empty if it has none."""
    return [record] if is_message(record) else messages_of(record) or []


def read_messages(
    values: list[Any], of_message: Callable[[Message], Iterable[Turn]], *, live: bool
) -> Trajectory:
    """The trajectory of a conversation, or of records that are one message each.

    Raises:
        InvalidRecordError: there are no messages.
    """
    value = values if is_message(values[0]) else values[0]
    messages = messages_of(value)
    if messages is None:
        raise InvalidRecordError("has no messages")
    turns = (turn for message in messages for turn in of_message(message))
    return conversation(value, turns, live=live)


def named(value: Any, names: Iterable[str]) -> str:
    """The first of these fields of an object or its metadata, as text."""
    fields = value if isinstance(value, dict) else {}
    metadata = fields.get("metadata")
    if isinstance(metadata, dict):
        fields = metadata | fields
    found = (fields[name] for name in names if isinstance(fields.get(name), str | int))
    return str(next(found, ""))


def conversation(value: Any, turns: Iterable[Turn], *, live: bool) -> Trajectory:
    """The trajectory of a conversation, with the id, agent and model of its object."""
    fields = value if isinstance(value, dict) else {}
    holders = [fields, *(fields.get(name) for name in ("request", "response", "body"))]
    models = (named(holder, ("model", "model_name")) for holder in holders)
    return Trajectory(
        assemble(turns),
        own_id=named(value, OWN_IDS),
        label=named(value, LABELS),
        agent=named(value, ("agent", "agent_name")),
        model=next(filter(None, models), ""),
        live=live,
    )
