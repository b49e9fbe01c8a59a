"""The MCP server: tools ``search`` and ``open_document``, on the official SDK.

The trajectory is the MCP session. What that is depends on transport and protocol:

==================================  ================================================================
stdio                               the process
streamable HTTP until 2025-11-25    the session that ``initialize`` opened (``Mcp-Session-Id``)
streamable HTTP from 2026-07-28     has no sessions: the model repeats ``trajectory_id`` of the last
                                    result, or the client sends the header ``Retrail-Trajectory``
==================================  ================================================================

A session without a call for half of ``mine_idle_seconds`` has its trajectory ended; the next call
begins another one. Agents are named by their client (``clientInfo.name``), or by ``Retrail-Agent``.
"""

import asyncio
import json
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import structlog
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    ToolAnnotations,
    jsonrpc_message_adapter,
)
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrail import Publisher
from retrail_runtime.metrics import at_zero
from retrail_runtime.process import StopSignals
from schemas.errors import RetrailError
from schemas.settings import Settings
from serving import metrics, tools
from serving.guards import MAX_BODY, MCP_PATH, replayed
from serving.problems import RefusedError, failure_of
from serving.running import serving
from serving.service import SearchService
from serving.sessions import DEFAULT_AGENT, HANDLE, TRAJECTORY_HEADER, Agent, Caller
from serving.tools import OpenedDocument, SearchAnswer

if TYPE_CHECKING:
    from serving.retriever import Retriever

SESSION_HEADER = "mcp-session-id"
LONGEST_NAME = 128

_Trajectory = Annotated[str | None, Field(pattern=HANDLE, description=tools.TRAJECTORY)]

STDIO_STOP_SECONDS = 1.5
"""Seconds to deliver events after a stop signal; the SDK's client kills the server after two."""

Running = Callable[[], AbstractAsyncContextManager[SearchService]]
"""The service; entered when the server starts, left when it stops."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lifespan:
    """The state of the server, or of a stdio or in-memory connection.

    ``handle`` names the trajectory of calls that come without HTTP headers.
    """

    service: SearchService
    handle: str


_Context = Context[Lifespan, Any]


def create_server(
    settings: Settings, running: Running, current: list[SearchService] | None = None
) -> MCPServer[Lifespan]:
    """The server, for any transport of the SDK.

    Args:
        current: holds the service while the server runs.
    """
    services = [] if current is None else current

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Lifespan]) -> AsyncIterator[Lifespan]:
        async with running() as service:
            services.append(service)
            try:
                yield Lifespan(service, f"mcp:{secrets.token_hex(16)}")
            finally:
                services.remove(service)

    server: MCPServer[Lifespan] = MCPServer(
        "retrail",
        title="Retrail search",
        instructions=tools.INSTRUCTIONS,
        version="1",
        lifespan=lifespan,
        subscriptions=False,
        log_level="WARNING",
    )
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    @server.tool(title="Search documents", description=tools.SEARCH, annotations=reads)
    async def search(
        context: _Context,
        query: tools.Query,
        k: tools.K = 10,
        reasoning: tools.Reasoning = None,
        trajectory_id: _Trajectory = None,
    ) -> SearchAnswer:
        with _tool_errors():
            caller = _caller(context, trajectory_id)
            return await _service(context).search(caller, query, k, reasoning)

    @server.tool(title="Open a document", description=tools.OPEN_DOCUMENT, annotations=reads)
    async def open_document(
        context: _Context,
        doc_id: tools.HitId,
        reasoning: tools.Reasoning = None,
        trajectory_id: _Trajectory = None,
    ) -> OpenedDocument:
        with _tool_errors():
            caller = _caller(context, trajectory_id)
            return await _service(context).open(caller, doc_id, reasoning)

    return server


def create_http_app(settings: Settings, running: Running, *, host: str) -> Starlette:
    """The server over streamable HTTP, at ``/mcp``; with ``/healthz``, ``/readyz``, ``/metrics``.

    Args:
        host: the address that it listens on; on the loopback only requests to it are answered.
    """
    current: list[SearchService] = []
    server = create_server(settings, running, current)
    at_zero(metrics.REQUESTS, ["mcp"], ("200", "401", "500", "503"))

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        try:
            version = await current[0].ready()
        except (RetrailError, IndexError):
            return JSONResponse({"status": "not ready"}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ok", "retriever_version": version})

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        host=host,
        max_request_body_size=MAX_BODY,
        max_sessions=settings.serve_max_trajectories,
    )
    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", show_metrics)):
        app.router.routes.append(Route(path, endpoint))
    app.add_middleware(_EndsTrajectories, current=current)
    app.add_middleware(_AnswersMalformed)
    return app


def readable(text: str) -> str | JSONRPCError:
    """A message that the SDK can read, or the answer to one that it cannot.

    The SDK drops what it cannot parse, so its caller would get no answer. A lone surrogate, which
    JSON can hold and Unicode text cannot, becomes U+FFFD.

    >>> readable('{"jsonrpc": "2.0", "id": 12, "method": "ping\\\\ud800"}')
    '{"jsonrpc": "2.0", "id": 12, "method": "ping\ufffd"}'
    """
    try:
        jsonrpc_message_adapter.validate_json(text, by_name=False)
        return text
    except ValidationError:
        pass
    try:
        found = json.loads(text)
        whole = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
    except (ValueError, RecursionError):
        return JSONRPCError(
            jsonrpc="2.0", id=None, error=ErrorData(code=PARSE_ERROR, message="This is no JSON.")
        )
    message = whole.decode("utf-16", "replace")
    try:
        jsonrpc_message_adapter.validate_json(message, by_name=False)
    except ValidationError:
        name = found.get("id") if isinstance(found, dict) else None
        return JSONRPCError(
            jsonrpc="2.0",
            id=name if isinstance(name, str | int) else None,
            error=ErrorData(code=INVALID_REQUEST, message="This is no JSON-RPC request."),
        )
    return message


class _AnswersMalformed:
    """Answers the messages that the SDK would not: see :func:`readable`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        found = readable((await Request(scope, receive).body()).decode("utf-8", "replace"))
        if isinstance(found, JSONRPCError):
            response = JSONResponse(found.model_dump(by_alias=True, exclude_unset=True), 400)
            return await response(scope, receive, send)
        return await self._app(scope, replayed(found.encode(), receive), send)


class _EndsTrajectories:
    """Ends the trajectory of a session that its client closed (``DELETE``)."""

    def __init__(self, app: ASGIApp, current: list[SearchService]) -> None:
        self._app, self._current = app, current

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "DELETE":
            return await self._app(scope, receive, send)
        session = Headers(scope=scope).get(SESSION_HEADER)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300 and session:
                self._current[0].sessions.end(_of_session(session, Agent("")))
            await send(message)

        return await self._app(scope, receive, noted)


def serve_stdio(settings: Settings, retriever: "Retriever", publisher: Publisher) -> None:
    """Serve standard input and output until input ends, or SIGTERM or SIGINT comes."""
    current: list[SearchService] = []
    server = create_server(settings, lambda: serving(settings, retriever, publisher), current)

    def stop() -> None:
        for service in current:
            service.sessions.end_all()
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


def _of_session(session: str, agent: Agent, address: str = "") -> Caller:
    return Caller(agent, f"mcp:{session}", session=True, address=address)


def _service(context: _Context) -> SearchService:
    return context.request_context.lifespan_context.service


def _caller(context: _Context, trajectory_id: str | None) -> Caller:
    """The caller of a tool, and its trajectory: see the table above."""
    headers: Mapping[str, str] = context.headers or {}
    client = context.session.client_params
    name = headers.get("retrail-agent") or (client.client_info.name if client else "")
    agent = Agent(
        name=(name or DEFAULT_AGENT)[:LONGEST_NAME],
        model=headers.get("retrail-model", "")[:LONGEST_NAME],
        tenant=headers.get("retrail-tenant", "")[:LONGEST_NAME],
    )
    if context.headers is None:
        return Caller(agent, context.request_context.lifespan_context.handle, session=True)
    request = context.request_context.request
    address = request.client.host if isinstance(request, Request) and request.client else ""
    if named := headers.get(TRAJECTORY_HEADER.lower()):
        if not re.match(HANDLE, named):
            raise ToolError(f"The header {TRAJECTORY_HEADER} does not match {HANDLE}.")
        return Caller(agent, named, address=address)
    if session := headers.get(SESSION_HEADER):
        return _of_session(session, agent, address)
    return Caller(agent, trajectory_id, address=address)


@contextmanager
def _tool_errors() -> Iterator[None]:
    """Errors in words for the model."""
    try:
        yield
    except RefusedError as error:
        raise ToolError(str(error)) from error
    except RetrailError as error:
        log.warning("cannot answer", error=str(error))
        raise ToolError(failure_of(error).message) from error
