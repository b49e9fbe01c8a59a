"""MCP messages: those that the SDK does not answer, and sessions without state over HTTP."""

import json
from collections.abc import Callable
from urllib.parse import quote, unquote

from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.tokens import caller_of, principal_of
from serving.guards import MCP_PATH, replayed
from serving.handles import DEFAULT_AGENT, Agent, Handles
from serving.service import SearchService

SESSION_HEADER = "mcp-session-id"
LONGEST_NAME = 128
"""Characters of an agent's name."""


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


class SessionRequests:
    """Answers what the SDK does not: see :func:`readable`; and gives sessions without state.

    The id of a session is a handle and the name of its client, which only ``initialize`` has.

    Args:
        service: returns the running service.
    """

    def __init__(self, app: ASGIApp, service: Callable[[], SearchService]) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != MCP_PATH:
            return await self._app(scope, receive, send)
        service, principal, request = self._service(), principal_of(scope), Request(scope, receive)
        if scope["method"] == "DELETE":
            session = request.headers.get(SESSION_HEADER)
            trajectory, client = session_of(session, service.handles, principal)
            if trajectory is not None:
                service.leave(caller_of(scope, Agent(client or DEFAULT_AGENT), trajectory))
            return await Response(status_code=204)(scope, receive, send)
        if scope["method"] != "POST":
            # Nothing is sent but answers.
            return await Response(None, 405, {"Allow": "POST, DELETE"})(scope, receive, send)
        found = readable((await request.body()).decode("utf-8", "replace"))
        if isinstance(found, JSONRPCError):
            response = JSONResponse(found.model_dump(by_alias=True, exclude_unset=True), 400)
            return await response(scope, receive, send)
        opened = _new_session(found, service.handles, principal)

        async def with_session(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300 and opened:
                MutableHeaders(scope=message)[SESSION_HEADER] = opened
            await send(message)

        return await self._app(scope, replayed(found.encode(), receive), with_session)


def session_of(session: str | None, handles: Handles, principal: str) -> tuple[str | None, str]:
    """The trajectory of a session and its client's name; ``None`` if it is not the caller's."""
    handle, _, quoted = (session or "").partition("~")
    if not handles.is_own(principal, handle):
        return None, ""
    # The id of a session is a secret, so it is not shown as a trajectory's.
    return handles.named(principal, handle, "session"), unquote(quoted)


def _new_session(text: str, handles: Handles, principal: str) -> str | None:
    """The id of the session that a message opens."""
    message = json.loads(text)
    if message.get("method") != "initialize":
        return None
    client = (message.get("params") or {}).get("clientInfo")
    name = str(client.get("name", "")) if isinstance(client, dict) else ""
    return f"{handles.drawn(principal)}~{quote(name[:LONGEST_NAME])}"
