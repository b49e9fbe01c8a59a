"""The MCP server: tools ``search`` and ``open_document``, on the official SDK.

The first of these that a call has names its trajectory:

1. the header ``Retrail-Trajectory``;
2. the argument ``trajectory_id``;
3. the document id that it opens: over HTTP the ids in search results carry the trajectory's handle;
4. the MCP session: over stdio the process, over HTTP the ``Mcp-Session-Id`` that ``initialize`` got
   (the protocol from 2026-07-28 has no sessions);
5. the header ``traceparent``, with ``RETRAIL_SERVE_TRACEPARENT``.

No replica remembers any of them: over HTTP every request may reach another one. The end of a
session ends no trajectory, because some clients open a session for each call. Agents are named by
their client (``clientInfo.name``), or by ``Retrail-Agent``.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote, unquote

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
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
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
from serving.guards import MAX_BODY, MCP_PATH, metrics_page, principal_of, replayed
from serving.handles import DEFAULT_AGENT, Agent, Caller, Handles
from serving.problems import TRAJECTORY_HEADER, RefusedError, failure_of
from serving.running import serving
from serving.service import SearchService
from serving.tools import Fetched, FoundResults, OpenedDocument, SearchAnswer

if TYPE_CHECKING:
    from serving.retriever import Retriever

SESSION_HEADER = "mcp-session-id"
LONGEST_NAME = 128

Toolset = Literal["retrail", "openai"]
"""``retrail``: search and open_document; ``openai``: search and fetch, as ChatGPT's connectors and
deep research want them."""

_Trajectory = Annotated[str | None, Field(max_length=160, description=tools.TRAJECTORY)]

STDIO_STOP_SECONDS = 1.5
"""Seconds to deliver events after a stop signal; the SDK's client kills the server after two."""

Running = Callable[[], AbstractAsyncContextManager[SearchService]]
"""The service; entered when the server starts, left when it stops."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lifespan:
    """The state of the server, or of a stdio or in-memory connection.

    ``handle`` is the trajectory of calls that come without HTTP headers.
    """

    service: SearchService
    handle: str


_Context = Context[Lifespan, Any]


def create_server(
    running: Running,
    current: list[SearchService] | None = None,
    toolset: Toolset = "retrail",
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
                yield Lifespan(service, service.handles.drawn(""))
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
    (_add_tools if toolset == "retrail" else _add_openai_tools)(server)
    return server


_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def _add_tools(server: MCPServer[Lifespan]) -> None:
    @server.tool(title="Search documents", description=tools.SEARCH, annotations=_READS)
    async def search(
        context: _Context,
        query: tools.Query,
        k: tools.K = 10,
        reasoning: tools.Reasoning = None,
        trajectory_id: _Trajectory = None,
    ) -> SearchAnswer:
        with _tool_errors():
            caller = _caller(context, trajectory_id)
            answer = await _service(context).search(caller, query, k, reasoning)
            return answer.shown(_handle_for_ids(context, answer))

    @server.tool(title="Open a document", description=tools.OPEN_DOCUMENT, annotations=_READS)
    async def open_document(
        context: _Context,
        doc_id: tools.ShownId,
        reasoning: tools.Reasoning = None,
        trajectory_id: _Trajectory = None,
    ) -> OpenedDocument:
        with _tool_errors():
            return await _opened(context, doc_id, reasoning, trajectory_id)


def _add_openai_tools(server: MCPServer[Lifespan]) -> None:
    @server.tool(title="Search documents", description=tools.SEARCH, annotations=_READS)
    async def search(context: _Context, query: tools.Query) -> FoundResults:
        with _tool_errors():
            answer = await _service(context).search(_caller(context, None), query, 10)
            return FoundResults.of(answer, _handle_for_ids(context, answer))

    @server.tool(title="Open a document", description=tools.OPEN_DOCUMENT, annotations=_READS)
    async def fetch(context: _Context, id: tools.ShownId) -> Fetched:
        with _tool_errors():
            return Fetched.of(await _opened(context, id), id)


def create_http_app(running: Running, *, host: str, toolset: Toolset = "retrail") -> Starlette:
    """The server over streamable HTTP, at ``/mcp``; with ``/healthz``, ``/readyz``, ``/metrics``.

    Args:
        host: the address that it listens on; on the loopback only requests to it are answered.
    """
    current: list[SearchService] = []
    server = create_server(running, current, toolset)
    at_zero(metrics.REQUESTS, ["mcp"], ("200", "401", "500", "503"))

    async def healthz(_request: Request) -> Response:
        version = current[0].version if current else None
        return JSONResponse({"status": "ok", "retriever_version": version})

    async def readyz(_request: Request) -> Response:
        try:
            version = await current[0].ready()
        except (RetrailError, IndexError):
            return JSONResponse({"status": "not ready"}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ok", "retriever_version": version})

    async def show_metrics(request: Request) -> Response:
        return metrics_page(request)

    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        host=host,
        max_request_body_size=MAX_BODY,
        stateless_http=True,
    )
    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", show_metrics)):
        app.router.routes.append(Route(path, endpoint))
    app.add_middleware(_Requests, current=current)
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


class _Requests:
    """Answers what the SDK does not: see :func:`readable`; and gives sessions without state.

    The id of a session is a handle and the name of its client, which only ``initialize`` has.
    """

    def __init__(self, app: ASGIApp, current: list[SearchService]) -> None:
        self._app, self._current = app, current

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != MCP_PATH:
            return await self._app(scope, receive, send)
        if scope["method"] == "DELETE":
            return await Response(status_code=204)(scope, receive, send)
        if scope["method"] != "POST":
            # Nothing is sent but answers.
            return await Response(None, 405, {"Allow": "POST, DELETE"})(scope, receive, send)
        found = readable((await Request(scope, receive).body()).decode("utf-8", "replace"))
        if isinstance(found, JSONRPCError):
            response = JSONResponse(found.model_dump(by_alias=True, exclude_unset=True), 400)
            return await response(scope, receive, send)
        session = _new_session(found, self._current[0].handles, principal_of(scope))

        async def with_session(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300 and session:
                MutableHeaders(scope=message)[SESSION_HEADER] = session
            await send(message)

        return await self._app(scope, replayed(found.encode(), receive), with_session)


def _new_session(text: str, handles: Handles, principal: str) -> str | None:
    """The id of the session that a message opens."""
    message = json.loads(text)
    if message.get("method") != "initialize":
        return None
    client = (message.get("params") or {}).get("clientInfo")
    name = str(client.get("name", "")) if isinstance(client, dict) else ""
    return f"{handles.drawn(principal)}~{quote(name[:LONGEST_NAME])}"


def _session(context: _Context, principal: str) -> tuple[str | None, str]:
    """The trajectory of a call's session, if it has one, and the name of its client."""
    client = context.session.client_params
    name = client.client_info.name if client else ""
    if context.headers is None:
        return context.request_context.lifespan_context.handle, name
    handles = _service(context).handles
    handle, _, quoted = context.headers.get(SESSION_HEADER, "").partition("~")
    if not handles.is_own(principal, handle):
        return None, name
    # The id of a session is a secret, so it is not shown as a trajectory's.
    return handles.named(principal, handle, "session"), unquote(quoted)


def serve_stdio(
    settings: Settings,
    retriever: "Retriever",
    publisher: Publisher,
    key: bytes,
    toolset: Toolset = "retrail",
) -> None:
    """Serve standard input and output until input ends, or SIGTERM or SIGINT comes."""
    server = create_server(lambda: serving(settings, retriever, publisher, key), toolset=toolset)

    def stop() -> None:
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


def _service(context: _Context) -> SearchService:
    return context.request_context.lifespan_context.service


def _scope(context: _Context) -> Scope:
    """That of the HTTP request; empty without one."""
    request = context.request_context.request
    return request.scope if isinstance(request, Request) else {}


def _caller(context: _Context, given: str | None) -> Caller:
    """The caller of a tool; ``given``: its argument, or the handle in the id that it opens."""
    headers: Mapping[str, str] = context.headers or {}
    scope = _scope(context)
    principal = principal_of(scope)
    session, client = _session(context, principal)
    agent = Agent(
        name=(headers.get("retrail-agent") or client or DEFAULT_AGENT)[:LONGEST_NAME],
        model=headers.get("retrail-model", "")[:LONGEST_NAME],
        tenant=headers.get("retrail-tenant", "")[:LONGEST_NAME],
    )
    trajectory = _service(context).trajectory_of(
        principal,
        headers.get(TRAJECTORY_HEADER.lower()) or given or session,
        headers.get("traceparent"),
    )
    address, _port = scope.get("client") or ("", 0)
    return Caller(agent, trajectory, address)


async def _opened(
    context: _Context, shown: str, reasoning: str | None = None, trajectory_id: str | None = None
) -> OpenedDocument:
    doc_id, handle = _service(context).handles.opened(principal_of(_scope(context)), shown)
    caller = _caller(context, trajectory_id or handle)
    return await _service(context).open(caller, doc_id, reasoning)


def _handle_for_ids(context: _Context, answer: SearchAnswer) -> str | None:
    """The handle that document ids carry: over stdio the process is enough."""
    return None if context.headers is None else answer.trajectory_id


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
