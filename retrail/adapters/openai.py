"""Search as tools of an OpenAI-style chat API: their definitions, and answers to their calls.

No client library is needed: definitions and answers are plain values, as for OpenAI, vLLM,
llama.cpp and others. The extra ``openai`` installs this module's requirements.
"""

import json
from typing import Any

from retrail.errors import ServeError
from retrail.http import ServedTrajectory

_REASONING = {
    "anyOf": [{"maxLength": 200_000, "type": "string"}, {"type": "null"}],
    "default": None,
    "description": "What you thought since your last call. After opening a document: did it help, "
    "and why or why not? One or more sentences.",
}

DEFINITIONS: list[dict[str, Any]] = [
    {
        "name": "search",
        "description": """\
Find documents by meaning. Returns the best k, best first: doc_id, title, score and the beginning
of the text. Use a full question or a description of what you look for; words that the document may
contain help. To read a document use open_document with its doc_id.""",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {
                    "description": "What to look for: a question or a description, in natural "
                    "language.",
                    "maxLength": 4000,
                    "minLength": 1,
                    "pattern": r"\S",
                    "type": "string",
                },
                "k": {
                    "default": 10,
                    "description": "How many documents to return.",
                    "maximum": 100,
                    "minimum": 1,
                    "type": "integer",
                },
                "reasoning": _REASONING,
            },
            "required": ["query"],
            "additionalProperties": False,
        },
    },
    {
        "name": "open_document",
        "description": "Read a whole document by the doc_id that search gave.",
        "parameters": {
            "type": "object",
            "properties": {
                "doc_id": {
                    "description": "The doc_id of a hit.",
                    "maxLength": 512,
                    "minLength": 1,
                    "type": "string",
                },
                "reasoning": _REASONING,
            },
            "required": ["doc_id"],
            "additionalProperties": False,
        },
    },
]
"""Name, description and JSON schema of each tool; those of ``serving.tools``."""

_OPERATIONS = {"search": "search", "open_document": "open"}
_MISTAKES = (404, 413, 422)
"""Statuses of responses to invalid calls of the model."""


class RetrailTools:
    """The tools ``search`` and ``open_document`` of a trajectory.

    Example::

        trajectory = client.trajectory()
        tools = RetrailTools(trajectory)
        reply = llm.chat.completions.create(model=…, messages=messages, tools=tools.tools())
        for call in reply.choices[0].message.tool_calls:
            content = tools.call(call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
        …
        trajectory.end(answer=reply.choices[0].message.content)

    The model gives its reasoning as an argument of the calls; text beside the calls can be added
    with ``trajectory.reason(message.content)``.
    """

    def __init__(self, trajectory: ServedTrajectory) -> None:
        self._trajectory = trajectory

    @staticmethod
    def tools(*, nested: bool = True) -> list[dict[str, Any]]:
        """The value of ``tools`` in a request.

        Args:
            nested: for the Chat Completions API; ``False``: for the Responses API.
        """
        if nested:
            return [{"type": "function", "function": function} for function in DEFINITIONS]
        return [{"type": "function", **function} for function in DEFINITIONS]

    def call(self, name: str, arguments: str | dict[str, Any]) -> str:
        """Execute a call of the model; returns JSON, the content of the tool's message.

        The result of an invalid call is ``{"error": …}``, so that the model can correct it.

        Args:
            arguments: a JSON object, as received.

        Raises:
            ServeError: the index is unavailable. Nothing was published: the call may be repeated.
        """
        body = _body(name, arguments)
        if isinstance(body, str):
            return _json(error=body)
        try:
            return _content(self._trajectory.post(_OPERATIONS[name], body))
        except ServeError as error:
            return _mistake(error)

    async def acall(self, name: str, arguments: str | dict[str, Any]) -> str:
        """As :meth:`call`, without blocking the event loop."""
        body = _body(name, arguments)
        if isinstance(body, str):
            return _json(error=body)
        try:
            return _content(await self._trajectory.apost(_OPERATIONS[name], body))
        except ServeError as error:
            return _mistake(error)


def _body(name: str, arguments: str | dict[str, Any]) -> dict[str, Any] | str:
    """The body of a request, or an error message."""
    if name not in _OPERATIONS:
        return f"There is no tool {name}; there are {' and '.join(_OPERATIONS)}."
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError as error:
        return f"The arguments are not JSON: {error}"
    return given if isinstance(given, dict) else "The arguments are not a JSON object."


def _content(answer: dict[str, Any]) -> str:
    """The content for the model; with ``trajectory_id`` traces show that it is published."""
    document = ("doc_id", "title", "text")
    given: dict[str, Any] = {name: answer[name] for name in document if name in answer}
    if "hits" in answer:
        names = ("doc_id", "title", "score", "snippet")
        given["hits"] = [{name: hit[name] for name in names} for hit in answer["hits"]]
    return _json(**given, trajectory_id=answer["trajectory_id"])


def _mistake(error: ServeError) -> str:
    if error.status not in _MISTAKES:
        raise error
    return _json(error=str(error))


def _json(**value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
