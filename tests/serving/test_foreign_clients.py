"""MCP clients and agents that others wrote, over HTTP and stdio: each gives its task's pairs."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import agents
import fastmcp
import pytest
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
from fastmcp.client.transports import StdioTransport
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.prebuilt import create_react_agent
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, TextContent

from retrail import Publisher
from retrail.adapters.langchain import RetrailCallbackHandler, search_tools
from retrail.http import SearchClient
from tests.agents import own_client
from tests.agents.langchain_model import ScriptedChatModel
from tests.agents.openai_model import ScriptedModel
from tests.agents.pairs import Pair
from tests.agents.script import GZIP, Result, play
from tests.agents.servers import Servers, running_servers
from tests.serving.mcp_world import MODERN
from tests.serving.processes import ROOT, events


@pytest.fixture(scope="module")
def servers(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running_servers(kafka, tmp_path_factory.mktemp("servers")) as found:
        yield found


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


def test_an_agent_behind_mcp_with_our_callback_handler_gives_each_pair_once(
    servers: Servers, expected: list[Pair]
) -> None:
    """The handler sends the model's texts through `retrail serve`, to the tools' trajectory."""
    seen = servers.event_ids()

    async def work() -> str:
        async with fastmcp.Client(servers.mcp_url) as mcp, SearchClient(servers.http_url) as http:

            async def text_of(name: str, arguments: dict[str, Any]) -> str:
                [content] = (await mcp.call_tool(name, arguments)).content
                assert isinstance(content, TextContent)
                return content.text

            @tool
            async def search(query: str, k: int, trajectory_id: str | None = None) -> str:
                """Find documents."""
                given = {"query": query, "k": k, "trajectory_id": trajectory_id}
                return await text_of("search", given)

            @tool
            async def open_document(doc_id: str, trajectory_id: str | None = None) -> str:
                """Read a document."""
                given = {"doc_id": doc_id, "trajectory_id": trajectory_id}
                return await text_of("open_document", given)

            model = ScriptedChatModel(script=GZIP, repeats=True)
            agent = create_agent(model, tools=[search, open_document])
            callbacks = {"callbacks": [RetrailCallbackHandler(http)]}
            state = await agent.ainvoke({"messages": [("user", GZIP.question)]}, callbacks)
            return str(state["messages"][-1].text)

    assert asyncio.run(work()) == GZIP.turns[-1].text
    assert servers.learned(seen) == expected
    [trajectory] = {e.trajectory_id for e in events(servers.settings) if e.event_id not in seen}
    assert [e.type for e in events(servers.settings) if e.trajectory_id == trajectory][-3:] == [
        "reasoning",
        "answer",
        "end",
    ]


@pytest.fixture(scope="module")
def adapters_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with langchain-mcp-adapters, which needs an older SDK of MCP."""
    folder = tmp_path_factory.mktemp("adapters")
    python, pins = folder / "venv" / "bin" / "python", folder / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    ours = [line for line in lines if not line.startswith(("mcp==", "mcp-types=="))]
    pins.write_text("\n".join([*ours, "mcp==1.30.0", "langchain-mcp-adapters==0.3.2"]))
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [*uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True
    )
    wanted = ["langchain-mcp-adapters", "langchain", "./retrail[langchain]"]
    install = [*uv, "pip", "install", "--quiet", "--python", python, "--constraint", pins, *wanted]
    subprocess.run(install, cwd=ROOT, check=True)
    return python


@pytest.mark.dist
@over_both
@pytest.mark.parametrize(
    ("session", "handler"),
    [(False, False), (True, False), (True, True)],
    ids=["default", "session", "session and callback handler"],
)
def test_an_agent_of_langchain_mcp_adapters_gives_the_pairs_of_its_task(
    session: bool,
    handler: bool,
    transport: str,
    servers: Servers,
    expected: list[Pair],
    adapters_python: Path,
) -> None:
    """By default each call has a session, over stdio a process: the model repeats the id."""
    command, *arguments = servers.stdio
    stdio = {"command": command, "args": arguments, "env": servers.environment, "cwd": str(ROOT)}
    http = {"transport": "streamable_http", "url": servers.mcp_url}
    given = {
        "connection": http if transport == "http" else {"transport": "stdio", **stdio},
        "session": session,
        "serve": servers.http_url if handler else None,
    }
    seen = servers.event_ids()
    done = subprocess.run(
        [adapters_python, "-m", "tests.agents.mcp_adapters", json.dumps(given)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == GZIP.turns[-1].text, done.stderr
    assert servers.learned(seen) == expected
