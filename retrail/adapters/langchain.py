"""Search for LangChain and LangGraph agents: a retriever, tools, and a callback handler.

The callback handler keeps one trajectory for each run of an agent, chain or graph::

    client = SearchClient(agent="my-agent", model="qwen3-30b")
    agent = create_agent(model, tools=search_tools(client))
    agent = agent.with_config(callbacks=[RetrailCallbackHandler(client)])
    agent.invoke({"messages": [("user", question)]})
"""

import json
import re
import warnings
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from retrail.adapters.openai import DEFINITIONS, RetrailTools

try:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.callbacks.manager import BaseRunManager
    from langchain_core.documents import Document
    from langchain_core.messages import AIMessage, ToolMessage
    from langchain_core.outputs import ChatGeneration, LLMResult
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.tools import BaseTool
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "retrail.adapters.langchain needs langchain-core. Run: pip install 'retrail[langchain]' "
        "(in a clone: pip install './retrail[langchain]').",
        name=error.name,
    ) from error
from pydantic import Field

from retrail.http import SearchClient, SearchResult, ServedTrajectory

_HANDLE = re.compile(r"[A-Za-z0-9_:]{11}\.[A-Za-z0-9_:]{11}")
"""Ids of trajectories that the server makes."""


@dataclass(slots=True)
class _Run:
    """A top-level run with its trajectory."""

    id: UUID
    trajectory: ServedTrajectory
    answer: str | None = None


class RetrailCallbackHandler(BaseCallbackHandler):
    """Makes one trajectory of each run of an agent, with the model's reasoning.

    The model's text, and its reasoning if the provider returns it, is sent to ``retrail serve``
    when the model has answered. When the run ends, the handler ends the trajectory; the model's
    last text without tool calls is the answer. One handler can be used for concurrent runs, also in
    asyncio.

    Tools that call ``retrail mcp``, or ``retrail serve`` by themselves, open the trajectory. If
    their result is JSON with the ``trajectory_id`` of the answer, the handler continues it.
    """

    def __init__(self, client: SearchClient) -> None:
        self._client = client
        self._runs: dict[UUID, _Run] = {}

    def trajectory(self, run_id: UUID) -> ServedTrajectory:
        """The trajectory of a run of a chain, tool or retriever.

        Raises:
            KeyError: there is no such active run.
        """
        return self._runs[run_id].trajectory

    def on_chain_start(
        self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A chain, tool or retriever starts: a top-level one begins a trajectory."""
        run = self._runs.get(parent_run_id) if parent_run_id else None
        self._runs[run_id] = run or _Run(run_id, self._client.trajectory())

    on_tool_start = on_retriever_start = on_chain_start

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool has answered."""
        run, handle = self._runs.get(run_id), _trajectory_id(output)
        if run is not None and handle not in (None, run.trajectory.id):
            run.trajectory = self._client.trajectory(handle)
            run.trajectory.id = handle
        self.on_chain_end(run_id=run_id)

    def on_chain_end(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        """A chain, tool or retriever ends or fails: a top-level one ends its trajectory."""
        run = self._runs.pop(run_id, None)
        if run is not None and run.id == run_id and run.trajectory.id is not None:
            run.trajectory.end(answer=run.answer)

    on_retriever_end = on_chain_end
    on_chain_error = on_tool_error = on_retriever_error = on_chain_end

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A model answered: record its text and reasoning."""
        run = self._runs.get(parent_run_id) if parent_run_id else None
        generation = response.generations[0][0]
        if run is None or not isinstance(generation, ChatGeneration):
            return
        message = generation.message
        if isinstance(message, AIMessage):
            reasoning = _reasoning(message)
            # Before the first search there is no trajectory.
            if reasoning and run.trajectory.id is not None:
                run.trajectory.reason(reasoning)
            if not message.tool_calls:
                run.answer = str(message.text)


class RetrailRetriever(BaseRetriever):
    """Finds documents in the live index.

    A document's ``page_content`` is its whole text and its ``id`` the document id; ``metadata`` has
    ``doc_id``, ``title``, ``rank``, ``score`` and ``retriever_version``. Retrail learns from opened
    documents, so a chain that reads documents should call the tool ``open_document`` for each.

    Args:
        client: of ``retrail serve``.
        k: how many documents.

    Example::

        retriever = RetrailRetriever(client=client, k=5)
        handler = RetrailCallbackHandler(client)
        documents = retriever.invoke("how to parse a date", {"callbacks": [handler]})
    """

    client: SearchClient
    k: int = Field(default=10, ge=1)

    def _get_relevant_documents(self, query: str, *, run_manager: BaseRunManager) -> list[Document]:
        trajectory = _trajectory(self.client, run_manager)
        return _documents(trajectory.search(query, self.k, texts=True))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: BaseRunManager
    ) -> list[Document]:
        trajectory = _trajectory(self.client, run_manager)
        return _documents(await trajectory.asearch(query, self.k, texts=True))


class RetrailTool(BaseTool):
    """One of :func:`search_tools`."""

    client: SearchClient

    def _run(self, *, run_manager: BaseRunManager | None = None, **arguments: Any) -> str:
        tools = RetrailTools(_trajectory(self.client, run_manager))
        return tools.call(self.name, arguments)

    async def _arun(self, *, run_manager: BaseRunManager | None = None, **arguments: Any) -> str:
        tools = RetrailTools(_trajectory(self.client, run_manager))
        return await tools.acall(self.name, arguments)


def search_tools(client: SearchClient) -> list[BaseTool]:
    """The tools ``search`` and ``open_document``, for any number of agents.

    They answer as :meth:`retrail.adapters.openai.RetrailTools.call` does.
    """
    return [
        RetrailTool(
            client=client,
            name=each["name"],
            description=each["description"],
            args_schema=each["parameters"],
        )
        for each in DEFINITIONS
    ]


def _trajectory(client: SearchClient, run_manager: BaseRunManager | None) -> ServedTrajectory:
    """The trajectory of the run's callback handler, or a new one with a warning."""
    if run_manager is not None:
        for handler in run_manager.handlers:
            if isinstance(handler, RetrailCallbackHandler):
                return handler.trajectory(run_manager.run_id)
    warnings.warn(
        "Without a RetrailCallbackHandler in the callbacks each call is a separate trajectory, and "
        "Retrail learns nothing from it.",
        stacklevel=3,
    )
    return client.trajectory()


def _trajectory_id(output: Any) -> str | None:
    """The trajectory of an answer of ``retrail serve`` or ``mcp`` that a tool returned."""
    if isinstance(output, ToolMessage):
        output = output.text
    try:
        found = json.loads(output) if isinstance(output, str) else output
    except ValueError:
        return None
    handle = found.get("trajectory_id") if isinstance(found, dict) else None
    return handle if isinstance(handle, str) and _HANDLE.fullmatch(handle) else None


def _documents(result: SearchResult) -> list[Document]:
    return [
        Document(
            id=hit.doc_id,
            page_content=hit.text or "",
            metadata={
                "doc_id": hit.doc_id,
                "title": hit.title,
                "rank": hit.rank,
                "score": hit.score,
                "retriever_version": result.retriever_version,
            },
        )
        for hit in result.hits
    ]


def _reasoning(message: AIMessage) -> str:
    """The reasoning and text of a message, in order."""
    parts = [
        block.get("reasoning") or block.get("text")
        for block in message.content_blocks
        if block["type"] in ("reasoning", "text")
    ]
    return "\n\n".join(str(part) for part in parts if part)
