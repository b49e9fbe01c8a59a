"""What stands before every request: the token, limits, and the names that the server answers to.

ASGI middleware without a framework's, so that the HTTP API and the MCP server share it.
"""

import asyncio
import hmac
import json
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.settings import Settings
from serving.api import server_metrics as metrics

UNGUARDED = ("/healthz", "/readyz")
"""What a probe must reach without a token, and while the server is busy."""
RETRY_SECONDS = 1
BODY_SECONDS = 30.0
"""How long a request's body may take to arrive."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")

MCP_PATH = "/mcp"
PROBLEM = "application/problem+json"


def problem(status: int, title: str, detail: str, **more: object) -> bytes:
    """A problem document (RFC 9457)."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail} | more
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def guarded(app: ASGIApp, settings: Settings, *, host: str) -> ASGIApp:
    """``app`` behind all guards, for a server that listens on ``host``."""
    app = Concurrency(BodyLimit(app, settings.serve_max_body), settings.serve_concurrency)
    if settings.serve_token is not None:
        app = Token(app, settings.serve_token.get_secret_value())
    elif host in LOOPBACK:
        # Without a token the loopback is the protection, and a web page that got a name of its own
        # to resolve to it (DNS rebinding) must not get through.
        app = Hosts(app, LOOPBACK)
    return Counted(app)


class Counted:
    """Counts answers by operation and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.REQUESTS.labels(_operation(scope), message["status"]).inc()
            await send(message)

        return await self._app(scope, receive, noted)


class Token:
    """Lets through what carries the token (``Authorization: Bearer …``), and probes."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in UNGUARDED:
            return await self._app(scope, receive, send)
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        if right and scheme.lower() == "bearer":
            return await self._app(scope, receive, send)
        return await _refuse(
            send,
            401,
            "Token needed",
            "Send the server's token as `Authorization: Bearer …`.",
            {"www-authenticate": "Bearer"},
        )


class Hosts:
    """Lets through requests to names that the server is known by."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or host_name(Headers(scope=scope).get("host")) in self._names:
            return await self._app(scope, receive, send)
        return await _refuse(
            send,
            421,
            "Unknown host",
            f"This server answers requests to {', '.join(self._names)} only.",
        )


class Concurrency:
    """Answers at most so many requests at once; others are told to come back."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most, self._under_way = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or _is_unlimited(scope):
            return await self._app(scope, receive, send)
        if self._under_way >= self._most:
            return await _refuse(
                send,
                503,
                "Too many requests at once",
                f"The server answers {self._most} requests at once; repeat this one.",
                {"retry-after": str(RETRY_SECONDS)},
            )
        self._under_way += 1
        metrics.REQUESTS_UNDER_WAY.inc()
        try:
            return await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
            metrics.REQUESTS_UNDER_WAY.dec()


class BodyLimit:
    """Reads a request's body before the app does, so that a large or slow one never reaches it."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._most:
            return await self._too_large(send)
        try:
            body = await asyncio.wait_for(self._read(receive), BODY_SECONDS)
        except TimeoutError:
            return await _refuse(send, 408, "Too slow", "The request's body took too long.")
        if body is None:
            return None
        if len(body) > self._most:
            return await self._too_large(send)
        return await self._app(scope, _replayed(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or as much of it as shows that it is too large; ``None``: the client left."""
        parts, size, more = [], 0, True
        while more and size <= self._most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _too_large(self, send: Send) -> None:
        await _refuse(
            send,
            413,
            "Request too large",
            f"A request has at most {self._most:,} bytes here (RETRAIL_SERVE_MAX_BODY).",
            {"connection": "close"},
        )


def host_name(header: str | None) -> str:
    """The name in a ``Host`` header, without the port.

    >>> host_name("localhost:8080"), host_name("[::1]:8080")
    ('localhost', '[::1]')
    """
    name = (header or "").lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _is_unlimited(scope: Scope) -> bool:
    """Probes, metrics, and the GET that an MCP client keeps open for notifications."""
    return scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/v1/")


def _operation(scope: Scope) -> str:
    """The operation that a request reached, once it was routed."""
    if scope["path"] == MCP_PATH:
        return "mcp"
    return getattr(scope.get("route"), "operation_id", None) or "none"


def _replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` of a request whose body was read already."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(
    send: Send, status: int, title: str, detail: str, headers: dict[str, str] | None = None
) -> None:
    body = problem(status, title, detail)
    fields = {"content-type": PROBLEM, "content-length": str(len(body))} | (headers or {})
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
