"""Agent Trajectory Interchange Format, version 1.x (Harbor, RFC 0001)."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from schemas.errors import InvalidRecordError
from streams.importing.readers import Asked, Fit, Trajectory, Unknown
from streams.importing.readers.chat import Result, Text, Turn, Use, assemble, text_of

_VERSION = "ATIF-v1."


class _Atif:
    def fits(self, value: Any) -> Fit:
        if not isinstance(value, dict) or not isinstance(value.get("steps"), list):
            return 0
        return 2 if str(value.get("schema_version")).startswith(_VERSION) else 0

    def key(self, value: Any) -> Hashable:
        return None

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        [value] = values
        if not self.fits(value):
            raise InvalidRecordError(f"has no steps, or its schema_version is not {_VERSION}x")
        yield from _trajectories(value)


reader = _Atif()


def _trajectories(value: dict[str, Any]) -> Iterator[Trajectory]:
    agent = value.get("agent") or {}
    turns = (turn for step in value.get("steps") or () for turn in _of_step(step))
    own_id = value.get("trajectory_id") or value.get("session_id")
    yield Trajectory(
        assemble(turns),
        own_id=str(own_id or ""),
        agent=str(agent.get("name") or ""),
        model=str(agent.get("model_name") or ""),
    )
    for subagent in value.get("subagent_trajectories") or ():
        yield from _trajectories(subagent)


def _of_step(step: Any) -> Iterator[Turn]:
    if not isinstance(step, dict):
        yield Unknown("not an object")
        return
    if step.get("is_copied_context"):
        return
    if step.get("source") == "user":
        yield Asked(text_of(step.get("message")))
    if step.get("source") != "agent":
        return
    yield Text(text_of(step.get("reasoning_content")), thought=True)
    yield Text(text_of(step.get("message")))
    for call in step.get("tool_calls") or ():
        yield Use(call.get("tool_call_id"), str(call.get("function_name")), call.get("arguments"))
    observation = step.get("observation") or {}
    for result in observation.get("results") or ():
        content = result.get("content")
        value = text_of(content) if isinstance(content, list) else content
        yield Result(result.get("source_call_id"), value)
