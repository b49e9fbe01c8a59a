"""Checks before every request, and limits of connections; for both servers.

Connections and headers are limited by :class:`LimitedProtocol`, origin, token and body by ASGI
middleware. How many searches are answered at once is limited by
:class:`serving.service.Slots`, so a client that sends or reads slowly takes none of them.
"""

import asyncio
import resource
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.datastructures import Headers
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from retrail_runtime.process import RateLimit
from schemas.settings import Settings
from serving import metrics, otlp
from serving.access.tokens import PROBES, Quota, Rights, Tokens
from serving.problems import problem

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")

MCP_PATH = "/mcp"
MAX_BODY = 1024 * 1024
"""Bytes of a request."""
LARGER = {otlp.PATH: otlp.MAX_TRACES}
"""Bytes of a request to these paths."""
BODY_SECONDS = 10.0
"""Seconds in which a request's body must arrive."""
HEADER_SECONDS = 10.0
"""Seconds in which a request's header must arrive."""
MAX_CONNECTIONS = 1000
RESERVED_FILES = 48
"""Files that connections leave to models, Kafka and Milvus."""

log = structlog.get_logger(__name__)


# -- Connections -----------------------------------------------------------------------------------


def connection_limit() -> int:
    """The number of connections that this process can have open.

    As many again may be accepted before the first of them is closed (:func:`accepted_at_once`).
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = most - len(list(Path("/dev/fd").iterdir())) - RESERVED_FILES
    return max(8, min(MAX_CONNECTIONS, free // 2))


def accepted_at_once(most: int) -> int:
    """How many connections asyncio may accept in one turn of its loop.

    A connection is made one turn after it was accepted, the one that is closed for it ends in the
    turn after that, and new ones are accepted in each: four times as many may be open meanwhile.
    """
    return most // 4


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with limits on connections that wait for their client.

    A header must arrive within ``header_seconds``. Beyond ``most`` connections, the one that has
    waited longest for its client is closed: for a request, for the rest of one, or for the client
    to read its answer. Requests that are being answered are never cut off.
    """

    _log_limit = RateLimit(60.0)

    def __init__(
        self, *args: Any, most: int, header_seconds: float = HEADER_SECONDS, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._most, self._header_seconds = most, header_seconds
        self._header_timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._seen: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        # Not in __init__: between both, others may have received what their clients sent.
        self._since = self.loop.time()
        self._watch_header()
        if len(self.connections) <= self._most:
            return
        limited = [one for one in self.connections if isinstance(one, LimitedProtocol)]
        idle = [one for one in limited if one.waits_for_client()]
        min(idle, key=lambda one: one._since).drop("limit")
        if self._log_limit.allows():
            log.warning("too many connections, closing those that wait", most=self._most)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        super().data_received(data)
        if self.cycle is not self._seen:
            self._seen, self._since = self.cycle, self.loop.time()
        self._watch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        super().connection_lost(exc)
        if self._header_timer is not None:
            self._header_timer.cancel()

    def waits_for_client(self) -> bool:
        """Whether nothing happens here until the client sends or reads something."""
        if self._waits_for_header() or self.cycle.more_body or self.flow.write_paused:
            return True
        # The notifications of an MCP session: its client connects again.
        return self.cycle.response_started and self.scope["method"] == "GET"

    def drop(self, reason: metrics.CloseReason) -> None:
        """Close the connection without an answer."""
        metrics.CONNECTIONS_CLOSED.labels(reason).inc()
        self.connections.discard(self)
        self.transport.abort()

    def _waits_for_header(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch_header(self) -> None:
        if not self._waits_for_header():
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self._header_seconds, self.drop, "header")


# -- Requests --------------------------------------------------------------------------------------


def guarded(
    app: ASGIApp,
    settings: Settings,
    *,
    host: str,
    max_body: int = MAX_BODY,
    body_seconds: float = BODY_SECONDS,
) -> ASGIApp:
    """``app`` behind all checks, for a server that listens on ``host``."""
    app = BodyLimit(app, max_body, body_seconds)
    if settings.serve_token is not None or settings.serve_tokens_file is not None:
        app = AuthenticationMiddleware(Rights(Quota(app)), Tokens(settings), on_error=_unauthorized)
    elif host in LOOPBACK:
        # Without a token the loopback is the protection: a web page whose own name resolves to it
        # (DNS rebinding) must not get through.
        app = TrustedHostMiddleware(app, LOOPBACK, www_redirect=False)
    return RequestCounter(OriginCheck(app))


class RequestCounter:
    """Counts answers by operation and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.REQUESTS.labels(_operation(scope), message["status"]).inc()
            await send(message)

        return await self._app(scope, receive, counted)


async def metrics_page(request: Request) -> Response:
    """The metrics in the format that the client accepts; exemplars are in OpenMetrics only."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(REGISTRY), media_type=content_type)


class OriginCheck:
    """Refuses requests that a browser sends for a page of another host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] not in PROBES:
            headers = Headers(scope=scope)
            if not is_own_origin(headers.get("origin"), headers.get("host", "")):
                refused = problem(
                    403, "Foreign origin", "Pages of another host may not use this server."
                )
                return await refused(scope, receive, send)
        return await self._app(scope, receive, send)


def is_own_origin(origin: str | None, host: str) -> bool:
    """Whether a request with these headers comes from no browser, or from a page of this host.

    >>> is_own_origin("http://localhost:3000", "127.0.0.1:8080")
    True
    >>> is_own_origin("https://evil.example", "127.0.0.1:8080")
    False
    """
    if origin is None:
        return True
    try:
        page, server = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return page is not None and (page == server or {page, server} <= set(LOOPBACK))


def _unauthorized(_conn: HTTPConnection, error: Exception) -> Response:
    return problem(401, "Token needed", str(error), headers={"WWW-Authenticate": "Bearer"})


class BodyLimit:
    """Reads a request's body before the app does, so that a large or slow one never reaches it."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        most = max(self._most, LARGER.get(scope["path"], 0))
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(Request(scope, receive), most)
        except TimeoutError:
            text = f"The request's body did not arrive within {self._seconds:g} s."
            slow = problem(408, "Too slow", text, headers={"Connection": "close"})
            return await slow(scope, receive, send)
        except ClientDisconnect:
            return None
        if body is None:
            large = problem(
                413,
                "Request too large",
                f"A request has at most {most:,} bytes here.",
                headers={"Connection": "close"},
            )
            return await large(scope, receive, send)
        return await self._app(scope, replayed(body, receive), send)

    async def _read(self, request: Request, most: int) -> bytes | None:
        """The body; ``None``: it is too large."""
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > most:
            return None
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                return None
        return bytes(body)


def _operation(scope: Scope) -> str:
    """The operation that a request reached, once it was routed."""
    if scope["path"] == MCP_PATH:
        return "mcp"
    return getattr(scope.get("route"), "operation_id", None) or "none"


def replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` of a request whose body was read already."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
