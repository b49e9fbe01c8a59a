"""Retrail as tools of an OpenAI-style chat API: their descriptions, and answers to their calls.

No client library is needed: descriptions and answers are plain values, as OpenAI, vLLM, llama.cpp
and others take them.
"""

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from retrail import Trajectory
from schemas.events import describe
from serving.errors import UnknownDocumentError
from serving.trajectories.tools import (
    OPEN_DOCUMENT,
    SEARCH,
    OpenedDocument,
    OpenRequest,
    Request,
    SearchRequest,
    ShownHit,
)

if TYPE_CHECKING:
    from serving.search.retriever import Retriever

_TOOLS: dict[str, tuple[str, type[Request]]] = {
    "search": (SEARCH, SearchRequest),
    "open_document": (OPEN_DOCUMENT, OpenRequest),
}


class RetrailTools:
    """The tools ``search`` and ``open_document`` over a retriever.

    With a trajectory each call is published as an event of it, its ``reasoning`` before it.

    Example::

        with publisher.trajectory() as trajectory:
            tools = RetrailTools(retriever, trajectory)
            reply = client.chat.completions.create(model=…, messages=messages, tools=tools.tools())
            for call in reply.choices[0].message.tool_calls:
                content = tools.call(call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    """

    def __init__(self, retriever: "Retriever", trajectory: Trajectory | None = None) -> None:
        self._retriever, self._trajectory = retriever, trajectory

    def tools(self, *, nested: bool = True) -> list[dict[str, Any]]:
        """What to send as ``tools``.

        Args:
            nested: as the Chat Completions API takes them; ``False``: as the Responses API does.
        """
        functions = [
            {
                "name": name,
                "description": description,
                "parameters": _parameters(request),
            }
            for name, (description, request) in _TOOLS.items()
        ]
        if nested:
            return [{"type": "function", "function": function} for function in functions]
        return [{"type": "function", **function} for function in functions]

    def call(self, name: str, arguments: str | dict[str, Any]) -> str:
        """Answer a call of the model: JSON, to be sent back as the tool's content.

        A mistake of the model is answered too, by ``{"error": …}``, so that it can correct it.

        Args:
            arguments: as they came, a JSON object.

        Raises:
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be searched now. Nothing
                was published: the call may be repeated.
        """
        if name not in _TOOLS:
            return _json(error=f"There is no tool {name}; there are {' and '.join(_TOOLS)}.")
        request = _TOOLS[name][1]
        try:
            given = (
                request.model_validate_json(arguments)
                if isinstance(arguments, str)
                else request.model_validate(arguments)
            )
        except ValidationError as error:
            return _json(error=describe(error.errors(include_url=False)))
        if isinstance(given, SearchRequest):
            return self._search(given)
        assert isinstance(given, OpenRequest)
        return self._open(given)

    def _search(self, given: SearchRequest) -> str:
        result = self._retriever.search(given.query, given.k)
        self._reason(given.reasoning)
        if self._trajectory is not None:
            version = result.retriever_version
            self._trajectory.search(given.query, result.hits, retriever_version=version)
        return _json(hits=[ShownHit.of(hit).model_dump(exclude={"rank"}) for hit in result.hits])

    def _open(self, given: OpenRequest) -> str:
        document = self._retriever.open(given.doc_id)
        self._reason(given.reasoning)
        if document is None:
            return _json(error=str(UnknownDocumentError(given.doc_id)))
        if self._trajectory is not None:
            self._trajectory.browse(document.doc_id)
        return _json(**OpenedDocument.of(document, "").model_dump(exclude={"trajectory_id"}))

    def _reason(self, reasoning: str | None) -> None:
        if self._trajectory is not None and reasoning:
            self._trajectory.reason(reasoning)


def _parameters(request: type[Request]) -> dict[str, Any]:
    """A JSON schema without the words that only people read; a model pays for each of them."""
    schema = request.model_json_schema()
    properties = {
        name: {key: value for key, value in field.items() if key != "title"}
        for name, field in schema["properties"].items()
    }
    unread = ("title", "description")
    return {k: v for k, v in schema.items() if k not in unread} | {"properties": properties}


def _json(**value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
