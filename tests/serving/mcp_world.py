"""The MCP server over a fake retriever, and the SDK's own client of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from schemas.settings import Settings
from serving.async_retriever import AsyncRetriever
from serving.guards import guarded
from serving.mcp.server import create_http_app
from serving.service import SearchService
from tests.serving.fakes import SECRET, FakeRetriever, Remembering
from tests.serving.live import listening

MODERN = "2026-07-28"

both = pytest.mark.parametrize("mode", ["legacy", MODERN])


class World:
    """A server over a fake retriever, and what it published."""

    def __init__(self, **changes: object) -> None:
        self.settings = Settings.model_validate(changes)
        self.retriever, self.log = FakeRetriever(), Remembering()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SearchService]:
        retriever = AsyncRetriever(self.retriever, seconds=self.settings.serve_deadline_seconds)
        service = SearchService(self.settings, retriever, self.log, SECRET)
        async with service.running():
            yield service


async def call(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """The structured result of a call that succeeds."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, result.content
    found = result.structured_content
    assert found is not None
    # Clients that know no structured results read the same as text.
    [text] = result.content
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == found
    return found


async def refusal(client: Client, tool: str, **arguments: object) -> str:
    """The error text of a call that fails."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert result.is_error
    [text] = result.content
    assert isinstance(text, TextContent)
    return text.text


@asynccontextmanager
async def over_http(
    url: str, mode: str, headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=headers, timeout=20) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


def served(world: World, test: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Run a test against the URL of a server behind its guards."""
    app = create_http_app(world.running, host="127.0.0.1")
    with listening(guarded(app, world.settings, host="127.0.0.1")) as url:
        asyncio.run(test(url))
