"""The MCP server: tools ``search``, ``open_document`` and ``reason``, on the official SDK.

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

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import structlog
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from retrail_runtime.metrics import at_zero
from schemas.errors import RetrailError
from serving import metrics, tools
from serving.access.tokens import caller_of, principal_of
from serving.guards import MAX_BODY, MCP_PATH, metrics_page
from serving.handles import DEFAULT_AGENT, Agent, Caller
from serving.mcp.messages import LONGEST_NAME, SESSION_HEADER, SessionRequests, session_of
from serving.problems import TRAJECTORY_HEADER, RefusedError, failure_of
from serving.service import SearchService
from serving.tools import Fetched, FoundResults, Noted, OpenedDocument, SearchAnswer

META_TRAJECTORY = "retrail/trajectory"
"""Key in a result's ``_meta`` that names the trajectory: this server has published the call."""

Toolset = Literal["retrail", "openai"]
"""``retrail``: search, open_document and reason; ``openai``: search and fetch, in the shape of
ChatGPT's connectors and deep research."""

_Trajectory = Annotated[str | None, Field(max_length=160, description=tools.TRAJECTORY)]

Running = Callable[[], AbstractAsyncContextManager[SearchService]]
"""The service; entered when the server starts, left when it stops."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Lifespan:
    """The state of the server, or of a stdio or in-memory connection.

    Attributes:
        handle: the trajectory of calls that come without HTTP headers.
        caller: of the last such call.
    """

    service: SearchService
    handle: str
    caller: Caller | None = None

    def leave(self) -> None:
        """The connection is over."""
        if self.caller is not None:
            self.service.leave(self.caller)


_Context = Context[Lifespan, Any]
S = TypeVar("S", str, str | None)


def create_server(
    running: Running,
    current: list[Lifespan] | None = None,
    toolset: Toolset = "retrail",
) -> MCPServer[Lifespan]:
    """The server, for any transport of the SDK.

    Args:
        current: holds the state while the server runs.
    """
    states = [] if current is None else current

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Lifespan]) -> AsyncIterator[Lifespan]:
        async with running() as service:
            state = Lifespan(service, service.handles.drawn(""))
            states.append(state)
            try:
                yield state
            finally:
                states.remove(state)
                state.leave()

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
    ) -> Annotated[CallToolResult, SearchAnswer]:
        with _tool_errors():
            caller = _caller(context, trajectory_id)
            answer = await _service(context).search(caller, query, k, reasoning)
            return _result(answer.shown(_handle_for_ids(context, answer)), answer.trajectory_id)

    @server.tool(title="Open a document", description=tools.OPEN_DOCUMENT, annotations=_READS)
    async def open_document(
        context: _Context,
        doc_id: tools.ShownId,
        reasoning: tools.Reasoning = None,
        trajectory_id: _Trajectory = None,
    ) -> Annotated[CallToolResult, OpenedDocument]:
        with _tool_errors():
            document = await _opened(context, doc_id, reasoning, trajectory_id)
            return _result(document, document.trajectory_id)

    @server.tool(title="Say what helped", description=tools.REASON, annotations=_READS)
    async def reason(
        context: _Context,
        reasoning: tools.Conclusion,
        doc_id: tools.ReasonedId = None,
        trajectory_id: _Trajectory = None,
    ) -> Annotated[CallToolResult, Noted]:
        with _tool_errors():
            about, handle = _named(context, doc_id)
            caller = _caller(context, trajectory_id or handle, begins=False)
            await _service(context).reason(caller, reasoning, about=about)
            return _result(Noted(trajectory_id=caller.trajectory_id), caller.trajectory_id)


def _add_openai_tools(server: MCPServer[Lifespan]) -> None:
    @server.tool(title="Search documents", description=tools.SEARCH, annotations=_READS)
    async def search(
        context: _Context, query: tools.Query
    ) -> Annotated[CallToolResult, FoundResults]:
        with _tool_errors():
            answer = await _service(context).search(_caller(context, None), query, 10)
            found = FoundResults.of(answer, _handle_for_ids(context, answer))
            return _result(found, answer.trajectory_id)

    @server.tool(title="Open a document", description=tools.OPEN_DOCUMENT, annotations=_READS)
    async def fetch(context: _Context, id: tools.ShownId) -> Annotated[CallToolResult, Fetched]:
        with _tool_errors():
            document = await _opened(context, id)
            return _result(Fetched.of(document, id), document.trajectory_id)


def create_http_app(running: Running, *, host: str, toolset: Toolset = "retrail") -> Starlette:
    """The server over streamable HTTP, at ``/mcp``; with ``/healthz``, ``/readyz``, ``/metrics``.

    Args:
        host: the address that it listens on; on the loopback only requests to it are answered.
    """
    current: list[Lifespan] = []
    server = create_server(running, current, toolset)
    at_zero(metrics.REQUESTS, ["mcp"], ("200", "401", "500", "503"))

    async def healthz(_request: Request) -> Response:
        version = current[0].service.version if current else None
        return JSONResponse({"status": "ok", "retriever_version": version})

    async def readyz(_request: Request) -> Response:
        try:
            version = await current[0].service.ready()
        except (RetrailError, IndexError):
            return JSONResponse({"status": "not ready"}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ok", "retriever_version": version})

    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        host=host,
        max_request_body_size=MAX_BODY,
        stateless_http=True,
    )
    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics_page)):
        app.router.routes.append(Route(path, endpoint))
    app.add_middleware(SessionRequests, service=lambda: current[0].service)
    return app


def _session(context: _Context, principal: str) -> tuple[str | None, str]:
    """The trajectory of a call's session, if it has one, and the name of its client."""
    client = context.session.client_params
    name = client.client_info.name if client else ""
    if context.headers is None:
        return context.request_context.lifespan_context.handle, name
    handles = _service(context).handles
    session, named = session_of(context.headers.get(SESSION_HEADER), handles, principal)
    return session, named or name


def _service(context: _Context) -> SearchService:
    return context.request_context.lifespan_context.service


def _scope(context: _Context) -> Scope:
    """That of the HTTP request; empty without one."""
    request = context.request_context.request
    return request.scope if isinstance(request, Request) else {}


def _caller(context: _Context, given: str | None, *, begins: bool = True) -> Caller:
    """The caller of a tool.

    Args:
        given: its argument, or the handle in the id that it opens.
        begins: whether a call that names no trajectory begins one.
    """
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
        begins=begins,
    )
    caller = caller_of(scope, agent, trajectory)
    if context.headers is None:
        context.request_context.lifespan_context.caller = caller
    return caller


async def _opened(
    context: _Context, shown: str, reasoning: str | None = None, trajectory_id: str | None = None
) -> OpenedDocument:
    doc_id, handle = _named(context, shown)
    caller = _caller(context, trajectory_id or handle)
    return await _service(context).open(caller, doc_id, reasoning)


def _named(context: _Context, shown: S) -> tuple[S | str, str | None]:
    """Document id and handle of an id that this server has shown."""
    if shown is None:
        return shown, None
    return _service(context).handles.opened(principal_of(_scope(context)), shown)


def _result(answer: BaseModel, trajectory_id: str) -> CallToolResult:
    """Structured, as text for clients that read no structured results, and marked."""
    content = answer.model_dump(mode="json")
    text = TextContent(type="text", text=json.dumps(content, ensure_ascii=False))
    return CallToolResult(
        content=[text], structured_content=content, _meta={META_TRAJECTORY: trajectory_id}
    )


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
