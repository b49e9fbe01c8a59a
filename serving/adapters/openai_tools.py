"""Retrail as tools of an OpenAI-style chat API: their descriptions, and what answers their calls.

No client library is needed: descriptions and answers are plain values, which OpenAI, vLLM,
llama.cpp and others take alike.
"""

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retrail import Trajectory
from schemas.documents import Document
from schemas.events import describe
from serving.api import tool_texts as texts
from serving.trajectories.service import MAX_K, MAX_QUERY, MAX_REASONING, snippet

if TYPE_CHECKING:
    from serving.search.retriever import Retriever

SNIPPET_CHARS = 400

_Reasoning = Annotated[str | None, Field(max_length=MAX_REASONING, description=texts.REASONING)]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Search(_Arguments):
    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY, description=texts.QUERY)]
    k: Annotated[int, Field(ge=1, le=MAX_K, description=texts.K)] = 10
    reasoning: _Reasoning = None


class _OpenDocument(_Arguments):
    doc_id: Annotated[str, Field(min_length=1, max_length=512, description=texts.DOC_ID)]
    reasoning: _Reasoning = None


_TOOLS: dict[str, tuple[str, type[_Arguments]]] = {
    "search": (texts.SEARCH, _Search),
    "open_document": (texts.OPEN_DOCUMENT, _OpenDocument),
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
                "parameters": _without_titles(arguments.model_json_schema()),
            }
            for name, (description, arguments) in _TOOLS.items()
        ]
        if nested:
            return [{"type": "function", "function": function} for function in functions]
        return [{"type": "function", **function} for function in functions]

    def call(self, name: str, arguments: str | dict[str, Any]) -> str:
        """Answer a call of the model: JSON, to be sent back as the tool's content.

        What the model did wrong is an answer too, ``{"error": …}``, so that it can do better.

        Args:
            arguments: as they came, a JSON object.

        Raises:
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be searched now. Nothing
            was
                published: the call may be repeated.
        """
        if name not in _TOOLS:
            return _error(f"There is no tool {name}; there are {' and '.join(_TOOLS)}.")
        model = _TOOLS[name][1]
        try:
            given = (
                model.model_validate_json(arguments)
                if isinstance(arguments, str)
                else model.model_validate(arguments)
            )
        except ValidationError as error:
            return _error(describe(error.errors(include_url=False)))
        if isinstance(given, _Search):
            return self._search(given)
        assert isinstance(given, _OpenDocument)
        return self._open(given)

    def _search(self, given: _Search) -> str:
        result = self._retriever.search(given.query, given.k)
        self._reason(given.reasoning)
        if self._trajectory is not None:
            self._trajectory.search(
                given.query, result.hits, retriever_version=result.retriever_version
            )
        hits = [
            {
                "doc_id": hit.doc_id,
                "title": hit.title,
                "score": round(hit.score, 4),
                "snippet": snippet(hit.text, SNIPPET_CHARS),
            }
            for hit in result.hits
        ]
        return _json({"hits": hits})

    def _open(self, given: _OpenDocument) -> str:
        document: Document | None = self._retriever.open(given.doc_id)
        self._reason(given.reasoning)
        if document is None:
            return _error("There is no document with this id. Use a doc_id that search gave.")
        if self._trajectory is not None:
            self._trajectory.browse(document.doc_id)
        return _json({"doc_id": document.doc_id, "title": document.title, "text": document.text})

    def _reason(self, reasoning: str | None) -> None:
        if self._trajectory is not None and reasoning:
            self._trajectory.reason(reasoning)


def _without_titles(schema: Any) -> Any:
    """A JSON schema without the titles that pydantic makes up; a model pays for every word."""
    if isinstance(schema, dict):
        return {k: _without_titles(v) for k, v in schema.items() if k != "title"}
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema


def _error(message: str) -> str:
    return _json({"error": message})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
