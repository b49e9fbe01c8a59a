"""Anthropic's messages with ``tool_use`` and ``tool_result``; sessions of coding agents.

A session is JSON Lines with ``sessionId``, ``uuid``, ``parentUuid`` and one ``message`` (or a part
of one). Lines with ``isSidechain`` are from subagents, each of which is a trajectory of its own.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from streams.importing.readers import SKIP, Asked, Fit, Trajectory
from streams.importing.readers.chat import (
    Message,
    Result,
    Text,
    Turn,
    Use,
    assemble,
    is_message,
    messages_in,
    read_messages,
    text_of,
)

_USES = ("tool_use", "server_tool_use", "mcp_tool_use")
_BLOCKS = {*_USES, "tool_result", "thinking", "mcp_tool_result", "web_search_tool_result"}


class _Anthropic:
    def fits(self, value: Any) -> Fit:
        if _session(value) is not None:
            return 2
        blocks = (block for message in messages_in(value) for block in _blocks(message))
        return 2 if any(block.get("type") in _BLOCKS for block in blocks) else 0

    def key(self, value: Any) -> Hashable:
        if (session := _session(value)) is not None:
            return session
        if is_message(value):
            return "conversation"
        no_message = isinstance(value, dict) and "type" in value and "messages" not in value
        return SKIP if no_message else None

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        if (session := _session(values[0])) is not None:
            yield from _of_session(session, values)
        else:
            yield read_messages(values, _of_message, live=True)


reader = _Anthropic()


def _session(value: Any) -> str | None:
    if isinstance(value, dict) and isinstance(value.get("message"), dict) and "uuid" in value:
        session = value.get("sessionId")
        return session if isinstance(session, str) else None
    return None


def _of_session(session: str, lines: list[dict[str, Any]]) -> Iterator[Trajectory]:
    """The trajectories of the main thread and of each subagent, in the order of the lines."""
    threads: dict[str, list[dict[str, Any]]] = {}
    thread_of: dict[Any, str] = {}
    for line in lines:
        thread = ""
        if line.get("isSidechain"):
            begins = str(line.get("agentId") or line["uuid"])
            thread = thread_of.get(line.get("parentUuid")) or begins
        thread_of[line["uuid"]] = thread
        if not (line.get("isMeta") or line.get("isApiErrorMessage")):
            threads.setdefault(thread, []).append(line)
    for thread, own in threads.items():
        models = (line["message"].get("model") for line in own)
        yield Trajectory(
            assemble(turn for line in own for turn in _of_message(line["message"])),
            own_id=f"{session}/{thread}" if thread else session,
            agent="coding-agent",
            model=next((str(model) for model in models if model), ""),
            live=True,
        )


def _blocks(message: Message) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or () if isinstance(block, dict)]


def _of_message(message: Message) -> Iterator[Turn]:
    blocks = _blocks(message)
    if message.get("role") == "user" and not any("tool_use_id" in block for block in blocks):
        yield Asked(text_of(blocks))
        return
    for block in blocks:
        match kind := block.get("type"):
            case "text" if message.get("role") == "assistant":
                yield Text(str(block.get("text") or ""))
            case "thinking":
                yield Text(str(block.get("thinking") or ""), thought=True)
            case _ if kind in _USES:
                yield Use(block.get("id"), str(block.get("name")), block.get("input"))
            case _ if "tool_use_id" in block:
                yield _result(block)


def _result(block: dict[str, Any]) -> Result:
    content = block.get("content")
    failed = bool(block.get("is_error"))
    if isinstance(content, dict) and str(content.get("type")).endswith("error"):
        failed = True
    parts = content if isinstance(content, list) else []
    is_text = any(isinstance(part, dict) and part.get("type") == "text" for part in parts)
    return Result(block["tool_use_id"], text_of(content) if is_text else content, failed)
