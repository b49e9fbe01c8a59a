"""Search for LangChain: the retriever, the tools, and the handler that keeps trajectories."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool

from retrail.adapters.langchain import RetrailCallbackHandler, RetrailRetriever, search_tools
from retrail.http import SearchClient
from schemas.errors import NoIndexError
from tests.serving.fakes import TEXTS, World


class Scripted(BaseChatModel):
    """Searches for the question, opens the best hit twice at once, and answers."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        results = [m for m in messages if isinstance(m, ToolMessage)]
        if not results:
            message = _calls("", ("search", {"query": messages[0].text, "k": 2}))
        elif len(results) == 1:
            hits = json.loads(results[0].text)["hits"]
            opened = [("open_document", {"doc_id": hit["doc_id"]}) for hit in hits]
            message = _calls("Both look right.", *opened)
        else:
            thought = {"type": "reasoning", "reasoning": "The first one answers it."}
            text = {"type": "text", "text": json.loads(results[1].text)["text"]}
            message = AIMessage([thought, text])
        return ChatResult(generations=[ChatGeneration(message=message)])


def _calls(text: str, *calls: tuple[str, dict[str, Any]]) -> AIMessage:
    made = [{"name": name, "args": args, "id": str(uuid4())} for name, args in calls]
    return AIMessage(text, tool_calls=made)


@pytest.fixture
def handler(client: SearchClient) -> RetrailCallbackHandler:
    return RetrailCallbackHandler(client)


@pytest.fixture
def agent(client: SearchClient, handler: RetrailCallbackHandler) -> Any:
    """Compiled once, for any number of runs."""
    made = create_agent(Scripted(), tools=search_tools(client))
    return made.with_config(callbacks=[handler])


@pytest.fixture(autouse=True)
def nothing_is_kept(handler: RetrailCallbackHandler) -> Iterator[None]:
    yield
    assert handler._runs == {}


QUESTION = {"messages": [("user", "open a gzip file")]}
WORK = [
    ("search", "open a gzip file", ["gzip", "json#0"], 1),
    ("reasoning", "Both look right."),
    ("browse", "gzip"),
    ("browse", "json#0"),
    ("reasoning", f"The first one answers it.\n\n{TEXTS['gzip']}"),
    ("answer", TEXTS["gzip"]),
    ("end", "unknown"),
]


def in_order(events: list[Any]) -> list[Any]:
    """Two documents are opened at once: in any order."""
    browses = sorted(event for event in events if event[0] == "browse")
    return [browses.pop(0) if event[0] == "browse" else event for event in events]


def test_a_run_of_an_agent_is_one_trajectory(world: World, agent: Any) -> None:
    state = agent.invoke(QUESTION)
    assert state["messages"][-1].text == TEXTS["gzip"]
    [events] = world.log.events.values()
    assert in_order(events) == WORK


def test_runs_at_once_are_trajectories_of_their_own(world: World, agent: Any) -> None:
    async def work() -> None:
        await asyncio.gather(*(agent.ainvoke(QUESTION) for _ in range(5)))

    asyncio.run(work())
    assert len(world.log.events) == 5
    for events in world.log.events.values():
        assert sorted(events) == sorted(WORK)
        assert events[0] == WORK[0]
        assert events[-3:] == WORK[-3:]


def test_documents_carry_ids_texts_and_versions(
    world: World, client: SearchClient, handler: RetrailCallbackHandler
) -> None:
    world.retriever.release = 3
    retriever = RetrailRetriever(client=client, k=2)
    documents = retriever.invoke("open a gzip file", {"callbacks": [handler]})
    assert [document.id for document in documents] == ["gzip", "json#0"]
    assert documents[0].page_content == TEXTS["gzip"]
    assert documents[0].metadata == {
        "doc_id": "gzip",
        "title": "gzip",
        "rank": 1,
        "score": 0.4,
        "retriever_version": 3,
    }
    [events] = world.log.events.values()
    assert events == [("search", "open a gzip file", ["gzip", "json#0"], 3), ("end", "unknown")]


def test_the_retriever_is_awaited(client: SearchClient, handler: RetrailCallbackHandler) -> None:
    retriever = RetrailRetriever(client=client, k=1)
    config: RunnableConfig = {"callbacks": [handler]}
    queries = ["gzip", "archives", "javascript"]
    answers = asyncio.run(retriever.abatch(queries, config))
    assert [answer[0].id for answer in answers] == ["gzip", "zip/file", "json#0"]


def test_a_chain_opens_what_it_reads(
    world: World, client: SearchClient, handler: RetrailCallbackHandler
) -> None:
    _, open_document = search_tools(client)

    def read(documents: list[Any], config: RunnableConfig) -> str:
        content = open_document.invoke({"doc_id": documents[0].id}, config)
        return str(json.loads(content)["text"])

    chain = RetrailRetriever(client=client, k=1) | RunnableLambda(read)
    assert chain.invoke("gzip", {"callbacks": [handler]}) == TEXTS["gzip"]
    [events] = world.log.events.values()
    assert [event[0] for event in events] == ["search", "browse", "end"]


def test_a_run_that_fails_ends_its_trajectory(
    world: World, client: SearchClient, handler: RetrailCallbackHandler
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("no")

    chain = RetrailRetriever(client=client) | RunnableLambda(fail)
    with pytest.raises(RuntimeError, match="no"):
        chain.invoke("gzip", {"callbacks": [handler]})
    [events] = world.log.events.values()
    assert [event[0] for event in events] == ["search", "end"]


def test_a_run_that_searches_nothing_publishes_nothing(
    world: World, handler: RetrailCallbackHandler, caplog: pytest.LogCaptureFixture
) -> None:
    RunnableLambda(lambda given: given).invoke("a", {"callbacks": [handler]})
    assert (world.log.events, caplog.records) == ({}, [])


def test_tools_of_others_that_call_the_server_open_the_trajectory(
    world: World, client: SearchClient, handler: RetrailCallbackHandler
) -> None:
    """The handler continues it: it sends the reasoning there, and the end."""

    @tool
    def search(query: str, k: int) -> str:
        """Search."""
        return json.dumps(post("search", None, query=query, k=k))

    @tool
    def open_document(doc_id: str) -> ToolMessage:
        """Open."""
        [opened] = world.log.events
        content = json.dumps(post("open", opened, doc_id=doc_id))
        return ToolMessage(content, tool_call_id="")

    def post(operation: str, trajectory: str | None, **body: Any) -> Any:
        headers = {"Retrail-Trajectory": trajectory} if trajectory else {}
        answer = client._http.post(f"/v1/{operation}", json=body, headers=headers)
        return answer.raise_for_status().json()

    agent = create_agent(Scripted(), tools=[search, open_document])
    agent.invoke(QUESTION, {"callbacks": [handler]})
    [events] = world.log.events.values()
    assert in_order(events) == WORK


@pytest.mark.parametrize(
    "content", ["no JSON", "[]", '{"trajectory_id": 1}', '{"trajectory_id": "task-1"}', 7]
)
def test_answers_of_other_tools_open_none(
    content: Any, world: World, handler: RetrailCallbackHandler
) -> None:
    @tool
    def other(a: int) -> Any:
        """Any."""
        return content

    def work(given: Any, config: RunnableConfig) -> None:
        other.invoke(given, config)
        FakeListChatModel(responses=["I conclude something."]).invoke("And?", config)

    RunnableLambda(work).invoke({"a": 1}, {"callbacks": [handler]})
    assert world.log.events == {}


def test_a_failure_of_the_index_is_raised(world: World, agent: Any) -> None:
    world.retriever.failure = NoIndexError("none")
    with pytest.raises(Exception, match="no index yet"):
        agent.invoke(QUESTION)
    assert world.log.events == {}


def test_without_a_handler_there_is_a_warning(client: SearchClient, world: World) -> None:
    search, _ = search_tools(client)
    with pytest.warns(UserWarning, match="RetrailCallbackHandler"):
        assert "gzip" in search.invoke({"query": "gzip"})
    assert len(world.log.events) == 1
