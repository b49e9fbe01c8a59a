"""The MCP server on standard input and output, one process for each client."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from io import TextIOWrapper
from typing import TYPE_CHECKING

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

from retrail import Publisher
from retrail_runtime.process import StopSignals
from schemas.settings import Settings
from serving.mcp.messages import readable
from serving.mcp.server import Lifespan, Toolset, create_server
from serving.running import serving

if TYPE_CHECKING:
    from serving.retriever import Retriever

STDIO_STOP_SECONDS = 1.5
"""Seconds to deliver events after a stop signal; the SDK's client kills the server after two."""


def serve_stdio(
    settings: Settings,
    retriever: "Retriever",
    publisher: Publisher,
    key: bytes,
    toolset: Toolset = "retrail",
) -> None:
    """Serve standard input and output until input ends, or SIGTERM or SIGINT comes."""
    current: list[Lifespan] = []
    server = create_server(lambda: serving(settings, retriever, publisher, key), current, toolset)

    def stop() -> None:
        for lifespan in current:
            lifespan.leave()
        publisher.close(STDIO_STOP_SECONDS)
        # A thread waits in a read of standard input that nothing interrupts.
        os._exit(0)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        with StopSignals(lambda: loop.call_soon_threadsafe(stop)):
            await _run_stdio(server)

    asyncio.run(run())


async def _run_stdio(server: MCPServer[Lifespan]) -> None:
    """As ``server.run_stdio_async()``, but every request is answered: see :func:`readable`."""
    lines = anyio.wrap_file(TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace"))

    async def messages() -> AsyncIterator[str]:
        async for line in lines:
            found = readable(line)
            if isinstance(found, str):
                yield found
            elif line.strip():
                await answers.send(SessionMessage(found))

    # The SDK only iterates over its input.
    async with stdio_server(stdin=messages()) as (requests, answers):  # type: ignore[arg-type]
        low = server._lowlevel_server
        await low.run(requests, answers, low.create_initialization_options())
