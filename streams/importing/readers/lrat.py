"""Runs of LRAT, BrowseComp-Plus and AgentIR: one JSON document with a list of steps, ``result``.

Each step has ``type`` (``reasoning``, ``tool_call``, ``output_text``), ``tool_name``, ``arguments``
(JSON in a string, or an object), ``output`` and in AgentIR ``docids``.
"""

from collections.abc import Hashable, Iterable
from typing import Any

from schemas.errors import InvalidRecordError
from streams.importing.readers import Answered, Call, Calls, Fit, Step, Thought, Trajectory, Unknown

_TYPES = {"reasoning", "tool_call", "output_text"}


class _Lrat:
    def fits(self, value: Any) -> Fit:
        steps = value.get("result") if isinstance(value, dict) else None
        if not isinstance(steps, list):
            return 0
        types = {step.get("type") for step in steps if isinstance(step, dict)}
        return 2 if types & _TYPES else 1

    def key(self, value: Any) -> Hashable:
        return None

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        [run] = values
        steps = run.get("result") if isinstance(run, dict) else None
        if not isinstance(steps, list):
            raise InvalidRecordError("has no list of steps 'result'")
        query_id, model = run.get("query_id"), _part(run, "metadata") or _part(run, "agent")
        yield Trajectory(
            steps=[_step(step) for step in steps],
            label="" if query_id is None else str(query_id),
            agent="lrat",
            model=model,
        )


reader = _Lrat()


def _part(run: dict[str, Any], name: str) -> str:
    part = run.get(name)
    return str(part.get("model") or "") if isinstance(part, dict) else ""


def _step(step: Any) -> Step:
    if not isinstance(step, dict):
        return Unknown("not an object")
    match step.get("type"):
        case "reasoning":
            return Thought(_text(step.get("output")))
        case "output_text":
            return Answered(_text(step.get("output")))
        case "tool_call":
            doc_ids = step.get("docids")
            call = Call(
                tool=str(step.get("tool_name")),
                arguments=step.get("arguments"),
                result=step.get("output"),
                doc_ids=tuple(map(str, doc_ids)) if isinstance(doc_ids, list) else None,
            )
            return Calls((call,))
        case kind:
            return Unknown(str(kind))


def _text(output: Any) -> str:
    if isinstance(output, str):
        return output
    parts = output if isinstance(output, list) else [output]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return " ".join(str(text) for text in texts if text is not None)
