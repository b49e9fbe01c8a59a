"""The MCP server, driven by the SDK's own client: tools, sessions, trajectories, guards."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp_types import JSONRPCError
from pydantic import SecretStr

from schemas.errors import NoIndexError
from serving.mcp.messages import readable
from serving.mcp.server import create_server
from tests.serving.fakes import TEXTS
from tests.serving.mcp_world import MODERN, World, both, call, over_http, refusal, served

TOKEN = "0123456789abcdef"


def connected(mode: str, world: World, test: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a client that is connected in memory."""

    async def go() -> None:
        async with Client(create_server(world.running), mode=mode) as client:
            await test(client)

    asyncio.run(go())


@both
def test_the_tools_are_described(mode: str) -> None:
    async def test(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        wanted = {"search": ["query"], "open_document": ["doc_id"], "reason": ["reasoning"]}
        assert set(tools) == set(wanted)
        for name, required in wanted.items():
            tool = tools[name]
            assert tool.description
            assert tool.input_schema["required"] == required
            assert "ctx" not in tool.input_schema["properties"]
            assert "context" not in tool.input_schema["properties"]
            for field in tool.input_schema["properties"].values():
                assert field["description"]
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
            assert tool.output_schema is not None
        k = tools["search"].input_schema["properties"]["k"]
        assert (k["minimum"], k["maximum"], k["default"]) == (1, 100, 10)

    connected(mode, World(), test)


@both
def test_a_connection_without_headers_is_one_trajectory(mode: str) -> None:
    world = World()

    async def test(client: Client) -> None:
        found = await call(client, "search", query="gzip", k=1)
        assert [hit["doc_id"] for hit in found["hits"]] == ["gzip"]
        opened = await call(client, "open_document", doc_id="gzip")
        assert opened["text"] == TEXTS["gzip"]
        await call(client, "open_document", doc_id="json#0", reasoning="It helped.")
        assert "UUID" in await refusal(client, "search", query="zip", trajectory_id="made-up")
        repeated = await call(
            client, "search", query="zip", k=1, trajectory_id=found["trajectory_id"]
        )
        assert {found["trajectory_id"], repeated["trajectory_id"]} == {opened["trajectory_id"]}
        noted = await call(client, "reason", reasoning="Nothing here.", doc_id="json#0")
        assert noted == {"trajectory_id": found["trajectory_id"]}
        result = await client.call_tool("open_document", {"doc_id": "zip/file"})
        assert result.meta is not None
        assert result.meta["retrail/trajectory"] == found["trajectory_id"]

    connected(mode, world, test)
    [events] = world.log.events.values()
    assert events == [
        ("search", "gzip", ["gzip"], 1),
        ("browse", "gzip"),
        ("reasoning", "It helped."),
        ("browse", "json#0"),
        ("search", "zip", ["zip/file"], 1),
        ("reasoning", "Nothing here.", "json#0"),
        ("browse", "zip/file"),
        ("other", "session-end"),
    ]
    [agent] = world.log.agents.values()
    assert (agent.name, agent.model) == ("mcp", "")
    assert world.retriever.closed


def test_the_model_reads_what_is_wrong_and_nothing_internal() -> None:
    world = World()

    async def test(client: Client) -> None:
        assert "no document with this id" in await refusal(client, "open_document", doc_id="x")
        assert "query" in await refusal(client, "search")
        assert "less than or equal to 100" in await refusal(client, "search", query="a", k=101)
        world.retriever.failure = NoIndexError("Milvus at http://10.0.0.7:19530 has no alias")
        text = await refusal(client, "search", query="a")
        assert "no index yet" in text
        assert "10.0.0.7" not in text
        world.retriever.failure = ZeroDivisionError("a secret")
        assert "secret" not in await refusal(client, "search", query="a")

    connected("legacy", world, test)


@both
def test_a_blank_query_is_refused_and_an_id_of_several_lines_is_opened(mode: str) -> None:
    world = World()
    world.retriever.texts["two\nlines\tand a tab"] = "A text."

    async def test(client: Client) -> None:
        assert "blank" in await refusal(client, "search", query=" \n\t")
        found = await call(client, "search", query="A text.", k=1)
        [hit] = found["hits"]
        assert "note" not in found
        world.retriever.note = "12% of all documents indexed"
        assert (await call(client, "search", query="text"))["note"] == world.retriever.note
        opened = await call(client, "open_document", doc_id=hit["doc_id"])
        assert (opened["doc_id"], opened["text"]) == ("two\nlines\tand a tab", "A text.")

    connected(mode, world, test)


MALFORMED = [
    ('{"jsonrpc": "2.0", "id": 3}', 3),
    ('{"jsonrpc": "2.0", "id": "a", "method": 5}', "a"),
    ('{"jsonrpc": "2.0", "id": 4, "method": "ping", "params": [1]}', 4),
    ('{"id": 5, "method": "ping"}', 5),
    ("[]", None),
    ("{", None),
    ("[" * 100_000, None),
]


@pytest.mark.parametrize(("text", "name"), MALFORMED)
def test_what_is_no_request_is_answered_with_its_id(text: str, name: object) -> None:
    answer = readable(text)
    assert isinstance(answer, JSONRPCError)
    assert answer.id == name


@given(st.text(), st.sampled_from(["\\ud800", "\\udfff", "\\ud83d\\ude00", "\\\\ud800"]))
def test_lone_surrogates_are_replaced_and_nothing_else(text: str, escape: str) -> None:
    said = json.dumps(text)[1:-1] + escape
    line = f'{{"jsonrpc": "2.0", "id": 1, "method": "x", "params": {{"a": "{said}"}}}}'
    found = readable(line)
    assert isinstance(found, str)
    wanted = json.loads(f'"{said}"')
    if escape in ("\\ud800", "\\udfff"):
        wanted = wanted[:-1] + "\ufffd"
    assert json.loads(found)["params"] == {"a": wanted}


# -- Streamable HTTP -------------------------------------------------------------------------------


def test_the_token_guards_it_and_probes_need_none() -> None:
    world = World(serve_token=SecretStr(TOKEN))

    async def test(url: str) -> None:
        async with over_http(url, "auto", {"Authorization": f"Bearer {TOKEN}"}) as client:
            await call(client, "search", query="gzip")
        async with httpx.AsyncClient() as http:
            assert (await http.post(f"{url}/mcp", json={})).status_code == 401
            assert (await http.get(f"{url}/metrics")).status_code == 401
            assert (await http.get(f"{url}/readyz")).json()["retriever_version"] == 1
            alive = {"status": "ok", "retriever_version": 1}
            assert (await http.get(f"{url}/healthz")).json() == alive
            world.retriever.failure = NoIndexError("none")
            assert (await http.get(f"{url}/readyz")).status_code == 503
            metrics = await http.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            assert 'retrail_serve_requests_total{operation="mcp",status="200"}' in metrics.text

    served(world, test)


@pytest.mark.parametrize("version", ["2025-06-18", MODERN])
def test_case_19_over_http_every_request_with_an_id_is_answered(version: str) -> None:
    world = World()

    async def test(url: str) -> None:
        headers = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": version,
            "Mcp-Method": "tools/call",
            "Mcp-Name": "search",
        }
        info = {"name": "x", "version": "1"}
        hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": info}
        prefix = "io.modelcontextprotocol/"
        meta = {
            f"{prefix}protocolVersion": version,
            f"{prefix}clientCapabilities": {},
            f"{prefix}clientInfo": info,
        }
        async with httpx.AsyncClient(headers=headers, timeout=20) as http:
            if version != MODERN:
                body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
                begun = await http.post(f"{url}/mcp", json=body)
                http.headers["Mcp-Session-Id"] = begun.headers["mcp-session-id"]
            params = {"name": "search", "arguments": {"query": "x QUERY y"}, "_meta": meta}
            body = {"jsonrpc": "2.0", "id": 12, "method": "tools/call", "params": params}
            text = json.dumps(body).replace("QUERY", "\\ud800")
            answer = await http.post(f"{url}/mcp", content=text)
            [line] = re.findall(r"\{.*\}", answer.text)
            found = json.loads(line)
            assert found["id"] == 12
            assert "result" in found, found
            assert found["result"]["isError"] is False
            for text, name in MALFORMED:
                answer = await http.post(f"{url}/mcp", content=text)
                assert answer.status_code == 400
                assert answer.json()["id"] == name
        assert world.retriever.batches[-1][0] == ["x \ufffd y"]

    served(world, test)
