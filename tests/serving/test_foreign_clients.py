"""MCP clients and agents that others wrote, over HTTP and stdio: each gives its task's pairs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import agents
import fastmcp
import pytest
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
from fastmcp.client.transports import StdioTransport
from langchain.agents import create_agent
from langgraph.prebuilt import create_react_agent
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

from retrail import Publisher
from retrail.adapters.langchain import RetrailCallbackHandler, search_tools
from retrail.http import SearchClient
from schemas.settings import Settings
from serving import running
from serving.async_retriever import AsyncRetriever
from serving.guards import guarded
from serving.http_api import create_app
from serving.mcp_server import create_http_app
from serving.service import SearchService
from tests.agents import own_client
from tests.agents.corpus import retriever
from tests.agents.langchain_model import ScriptedChatModel
from tests.agents.openai_model import ScriptedModel
from tests.agents.pairs import Pair, pairs
from tests.agents.script import GZIP, Result, play
from tests.serving.live import listening
from tests.serving.mcp_world import MODERN
from tests.serving.processes import ROOT, environment, events
from tests.streams.fleet import installation

SECRET = "a secret that all servers share"


@dataclass
class Servers:
    """Servers of one installation, over the corpus of scripted agents and a real Kafka."""

    settings: Settings
    mcp_url: str
    http_url: str

    @property
    def stdio(self) -> list[str]:
        """Command of an MCP server."""
        return [sys.executable, "-m", "tests.serving.stdio_server"]

    @property
    def environment(self) -> dict[str, str]:
        """Its environment."""
        return environment(self.settings, RETRAIL_SERVE_SECRET=SECRET)

    def learned(self, seen: set[str]) -> list[Pair]:
        """The pairs of the events that are not among those ``seen``."""
        new = [event for event in events(self.settings) if event.event_id not in seen]
        return pairs(new, self.settings)

    def event_ids(self) -> set[str]:
        """Those on the log."""
        return {event.event_id for event in events(self.settings)}


@pytest.fixture(scope="module")
def servers(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    settings = installation(kafka, tmp_path_factory.mktemp("servers"))

    @asynccontextmanager
    async def service() -> AsyncIterator[Any]:
        searches = AsyncRetriever(retriever(), seconds=10)
        with running.publisher(settings) as publisher:
            async with SearchService(
                settings, searches, publisher, SECRET.encode()
            ).running() as found:
                yield found

    mcp_app = create_http_app(service, host="127.0.0.1")
    with (
        listening(guarded(mcp_app, settings, host="127.0.0.1")) as mcp_url,
        listening(guarded(create_app(service), settings, host="127.0.0.1")) as http_url,
    ):
        yield Servers(settings, f"{mcp_url}/mcp", http_url)


@pytest.fixture(scope="module")
def expected(servers: Servers) -> list[Pair]:
    """The pairs of the same task on our own client."""
    settings, seen = servers.settings, servers.event_ids()
    bootstrap, prefix = settings.kafka_bootstrap, settings.topic_prefix
    with Publisher("own", bootstrap=bootstrap, topic_prefix=prefix) as publisher:
        own_client.work(GZIP, publisher)
    found = servers.learned(seen)
    assert {(pair[1], pair[3]) for pair in found} == {
        ("gzip", "relevant"),
        ("csv", "irrelevant"),
        ("tar", "relevant"),
        ("zip", "irrelevant"),
    }
    return found


Tool = Callable[[str, dict[str, Any]], Awaitable[Result]]


def sdk(mode: str) -> Callable[[Any], AbstractAsyncContextManager[Tool]]:
    """The official SDK's client."""

    @asynccontextmanager
    async def connect(server: str | Servers) -> AsyncIterator[Tool]:
        if isinstance(server, Servers):
            command, *arguments = server.stdio
            target: Any = StdioServerParameters(
                command=command, args=arguments, env=server.environment, cwd=ROOT
            )
        else:
            target = server
        async with Client(target, mode=mode) as client:

            async def tool(name: str, arguments: dict[str, Any]) -> Result:
                result = await client.call_tool(name, arguments)
                assert isinstance(result, CallToolResult)
                assert not result.is_error, result.content
                return result.structured_content or {}

            yield tool

    return connect


@asynccontextmanager
async def fast_mcp(server: str | Servers) -> AsyncIterator[Tool]:
    """FastMCP's client."""
    if isinstance(server, Servers):
        command, *arguments = server.stdio
        target: Any = StdioTransport(command, arguments, env=server.environment, cwd=str(ROOT))
    else:
        target = server
    async with fastmcp.Client(target) as client:

        async def tool(name: str, arguments: dict[str, Any]) -> Result:
            return (await client.call_tool(name, arguments)).structured_content or {}

        yield tool


CLIENTS = {"sdk": sdk("legacy"), "sdk from 2026-07-28": sdk(MODERN), "fastmcp": fast_mcp}
WITHOUT_SESSIONS = ("sdk from 2026-07-28", "fastmcp")
"""Their protocol has none, so their models have to repeat the trajectory's id, as servers ask."""

over_both = pytest.mark.parametrize("transport", ["http", "stdio"])


@over_both
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_gives_the_pairs_of_its_task(
    name: str, transport: str, servers: Servers, expected: list[Pair]
) -> None:
    seen = servers.event_ids()

    async def work() -> str:
        connect = CLIENTS[name]
        async with connect(servers if transport == "stdio" else servers.mcp_url) as tool:
            return await play(GZIP, tool, speaks=True, repeats=name in WITHOUT_SESSIONS)

    assert asyncio.run(work()) == GZIP.turns[-1].text
    assert servers.learned(seen) == expected


@over_both
def test_an_agent_of_openai_agents_gives_the_pairs_of_its_task(
    transport: str, servers: Servers, expected: list[Pair]
) -> None:
    seen = servers.event_ids()

    async def work() -> str:
        command, *arguments = servers.stdio
        stdio: Any = {
            "command": command,
            "args": arguments,
            "env": servers.environment,
            "cwd": str(ROOT),
        }
        # The default of 5 s is short for the start of a process on a busy machine.
        patience = {"client_session_timeout_seconds": 60.0}
        made: Any = (
            MCPServerStdio(stdio, **patience)
            if transport == "stdio"
            else MCPServerStreamableHttp({"url": servers.mcp_url}, **patience)
        )
        async with made as server:
            model = ScriptedModel(GZIP, speaks=True, repeats=transport == "http")
            agent = agents.Agent("openai", model=model, mcp_servers=[server])
            run = agents.RunConfig(tracing_disabled=True)
            return str((await agents.Runner.run(agent, GZIP.question, run_config=run)).final_output)

    assert asyncio.run(work()) == GZIP.turns[-1].text
    assert servers.learned(seen) == expected


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
@pytest.mark.parametrize("build", [create_react_agent, create_agent])
def test_an_agent_of_langgraph_with_our_tools_gives_the_pairs_of_its_task(
    build: Callable[..., Any], servers: Servers, expected: list[Pair]
) -> None:
    seen = servers.event_ids()
    with SearchClient(servers.http_url, agent="langgraph", model="scripted") as client:
        agent = build(ScriptedChatModel(script=GZIP), tools=search_tools(client))
        callbacks = {"callbacks": [RetrailCallbackHandler(client)]}
        state = agent.invoke({"messages": [("user", GZIP.question)]}, callbacks)
    assert state["messages"][-1].text == GZIP.turns[-1].text
    assert servers.learned(seen) == expected
