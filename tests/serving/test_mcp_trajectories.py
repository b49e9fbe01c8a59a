"""Which trajectory an MCP call belongs to, whichever replica answers it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.handles import Handles
from serving.mcp.server import create_http_app
from tests.serving.fakes import SECRET, TEXTS
from tests.serving.live import listening
from tests.serving.mcp_world import MODERN, World, both, call, over_http, refusal, served


def in_turn(worlds: list[World], test: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Run a test against the URL of a balancer that gives every request to the next replica."""
    with ExitStack() as stack:
        urls = cycle(
            stack.enter_context(listening(create_http_app(world.running, host="127.0.0.1")))
            for world in worlds
        )

        async def balance(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            request = Request(scope, receive)
            skipped = ("host", "content-length")
            headers = [(k, v) for k, v in request.headers.items() if k not in skipped]
            async with httpx.AsyncClient(timeout=20) as http:
                answer = await http.request(
                    request.method,
                    next(urls) + request.url.path,
                    headers=headers,
                    content=await request.body(),
                )
            own = {k: v for k, v in answer.headers.items() if k != "content-length"}
            await Response(answer.content, answer.status_code, own)(scope, receive, send)

        asyncio.run(test(stack.enter_context(listening(balance))))


def events_of(worlds: list[World]) -> dict[str, set[str]]:
    """The types of steps by trajectory, over all replicas; ends of sessions are no steps."""
    found: dict[str, set[str]] = {}
    for world in worlds:
        for trajectory, events in world.log.events.items():
            steps = [event[0] for event in events if event != ("other", "session-end")]
            if steps or not events:
                found.setdefault(trajectory, set()).update(steps)
    return found


@pytest.mark.parametrize("ids", ["shown", "bare"])
@both
def test_a_task_is_a_trajectory_whichever_replica_answers(mode: str, ids: str) -> None:
    """The id that is opened finds its search; with a bare one, the session does."""
    worlds = [World(), World()]

    async def test(url: str) -> None:
        async with over_http(url, mode) as client:
            found = await call(client, "search", query="gzip", k=1)
            [hit] = found["hits"]
            handle = found["trajectory_id"]
            assert hit["doc_id"] == f"gzip~{handle}"
            doc_id = hit["doc_id"] if ids == "shown" else "gzip"
            opened = await call(client, "open_document", doc_id=doc_id)
            assert (opened["doc_id"], opened["text"]) == ("gzip", TEXTS["gzip"])
            together = ids == "shown" or mode == "legacy"
            assert (opened["trajectory_id"] == handle) is together

    in_turn(worlds, test)
    wanted = (
        [{"search", "browse"}] if ids == "shown" or mode == "legacy" else [{"search"}, {"browse"}]
    )
    assert list(events_of(worlds).values()) == wanted
    agents = {agent.name for world in worlds for agent in world.log.agents.values()}
    assert agents == {"mcp"}


def test_a_session_for_each_call_gives_the_trajectory_too() -> None:
    worlds = [World(), World()]

    async def test(url: str) -> None:
        async with over_http(url, "legacy") as client:
            found = await call(client, "search", query="gzip", k=2)
        for hit in found["hits"]:
            async with over_http(url, "legacy") as client:
                await call(client, "open_document", doc_id=hit["doc_id"], reasoning="So.")

    in_turn(worlds, test)
    assert list(events_of(worlds).values()) == [{"search", "browse", "reasoning"}]


def test_sessions_are_trajectories_of_their_own() -> None:
    world = World()

    async def test(url: str) -> None:
        async with over_http(url, "legacy") as one, over_http(url, "legacy") as two:
            first = await call(one, "search", query="gzip", k=1)
            other = await call(two, "search", query="zip", k=1)
            again = await call(one, "search", query="zip", k=1)
            assert first["trajectory_id"] == again["trajectory_id"] != other["trajectory_id"]
            invented = await refusal(one, "search", query="zip", trajectory_id="task-1")
            assert "UUID" in invented
            explicit = await call(
                one, "search", query="zip", k=1, trajectory_id=other["trajectory_id"]
            )
            assert explicit["trajectory_id"] == other["trajectory_id"]

    served(world, test)
    assert [[event[0] for event in events] for events in world.log.events.values()] == [
        ["search", "search", "other"]
    ] * 2


def test_the_end_of_a_session_is_published_for_its_trajectory_only() -> None:
    world = World()
    headers = {"Accept": "application/json, text/event-stream"}
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "bare", "version": "1"},
        },
    }

    async def test(url: str) -> None:
        async with httpx.AsyncClient(headers=headers, timeout=20) as http:
            opened = await http.post(f"{url}/mcp", json=initialize)
            http.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
            params = {"name": "search", "arguments": {"query": "gzip"}}
            body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
            assert (await http.post(f"{url}/mcp", json=body)).status_code == 200
            assert (await http.delete(f"{url}/mcp")).status_code == 204

    served(world, test)
    [(trajectory, events)] = world.log.events.items()
    assert [event[0] for event in events] == ["search", "other"]
    assert events[1] == ("other", "session-end")
    assert world.log.agents[trajectory].name == "bare"


@both
def test_a_reasoning_finds_its_trajectory_by_the_id_of_the_document(mode: str) -> None:
    world = World()

    async def test(url: str) -> None:
        async with over_http(url, mode) as client:
            found = await call(client, "search", query="gzip", k=1)
            shown = found["hits"][0]["doc_id"]
            await call(client, "open_document", doc_id=shown)
        async with over_http(url, mode) as client:
            noted = await call(client, "reason", reasoning="It helped.", doc_id=shown)
            assert noted == {"trajectory_id": found["trajectory_id"]}
        if mode == MODERN:
            async with over_http(url, mode) as client:
                text = await refusal(client, "reason", reasoning="It helped.")
                assert "trajectory_id of the last result" in text

    served(world, test)
    [events] = [one for one in world.log.events.values() if one[0][0] == "search"]
    assert [event for event in events if event[0] != "other"] == [
        ("search", "gzip", ["gzip"], 1),
        ("browse", "gzip"),
        ("reasoning", "It helped.", "gzip"),
    ]


def test_an_invented_session_is_none() -> None:
    world = World()

    async def test(url: str) -> None:
        headers = {"Accept": "application/json, text/event-stream", "Mcp-Session-Id": "1"}
        params = {"name": "search", "arguments": {"query": "gzip"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with httpx.AsyncClient(headers=headers, timeout=20) as http:
            for _ in range(2):
                assert (await http.post(f"{url}/mcp", json=body)).status_code == 200
            assert (await http.get(f"{url}/mcp")).status_code == 405
            assert (await http.delete(f"{url}/mcp")).status_code == 204

    served(world, test)
    assert [len(events) for events in world.log.events.values()] == [1, 1]


def test_the_tools_of_chatgpt_have_its_shape_and_give_a_trajectory() -> None:
    world = World()
    world.retriever.texts["https://example.org/a"] = "A page about lamps."
    world.retriever.urls["gzip"] = "https://example.org/gzip"

    async def test(url: str) -> None:
        async with over_http(url, MODERN) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert {
                name: list(tool.input_schema["properties"]) for name, tool in tools.items()
            } == {
                "search": ["query"],
                "fetch": ["id"],
            }
            found = await call(client, "search", query="a page about lamps.")
            first = found["results"][0]
            assert first.keys() == {"id", "title", "url"}
            assert first["url"] == first["title"] == "https://example.org/a"
            fetched = await call(client, "fetch", id=first["id"])
            metadata = fetched.pop("metadata")
            assert metadata.keys() == {"doc_id", "trajectory_id"}
            assert metadata["doc_id"] == "https://example.org/a"
            assert fetched == first | {"text": "A page about lamps."}
            [of_gzip] = (hit for hit in found["results"] if hit["title"] == "gzip")
            assert of_gzip["url"] == "https://example.org/gzip"
            assert "no document" in await refusal(client, "fetch", id="absent")

    app = create_http_app(world.running, host="127.0.0.1", toolset="openai")
    with listening(app) as url:
        asyncio.run(test(url))
    assert list(events_of([world]).values()) == [{"search", "browse"}, set()]


@both
def test_headers_name_trajectory_and_agent(mode: str) -> None:
    world = World()

    async def test(url: str) -> None:
        headers = {
            "Retrail-Trajectory": "0af76519-16cd-43dd-8448-eb211c80319c",
            "Retrail-Agent": "me",
            "Retrail-Model": "gpt",
            "Retrail-Tenant": "t",
        }
        async with over_http(url, mode, headers) as client:
            found = await call(client, "search", query="gzip", k=1)
            await call(client, "open_document", doc_id="gzip")
        assert found["trajectory_id"] == Handles(SECRET).given("", headers["Retrail-Trajectory"])
        trajectory = found["trajectory_id"]
        assert [event[0] for event in world.log.events[trajectory]] == ["search", "browse"]
        agent = world.log.agents[trajectory]
        assert (agent.name, agent.model, agent.tenant) == ("me", "gpt", "t")
        async with over_http(url, mode, {"Retrail-Trajectory": "no good"}) as client:
            assert "Retrail-Trajectory" in await refusal(client, "search", query="a")

    served(world, test)
