"""Checks before every request: host names, the token, limits. ASGI middleware for both servers."""

import asyncio
import hmac

from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.settings import Settings
from serving import metrics
from serving.problems import problem

UNGUARDED = ("/healthz", "/readyz")
"""What a probe must reach without a token, and while the server is busy."""
RETRY_SECONDS = 1
BODY_SECONDS = 30.0
"""How long a request's body may take to arrive."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")

MCP_PATH = "/mcp"
MAX_BODY = 1024 * 1024
"""Bytes of a request."""


def guarded(
    app: ASGIApp,
    settings: Settings,
    *,
    host: str,
    max_body: int = MAX_BODY,
    body_seconds: float = BODY_SECONDS,
) -> ASGIApp:
    """``app`` behind all guards, for a server that listens on ``host``."""
    app = BodyLimit(app, max_body, body_seconds)
    app = ConcurrencyLimit(app, settings.serve_concurrency)
    if settings.serve_token is not None:
        token = BearerToken(settings.serve_token.get_secret_value())
        app = AuthenticationMiddleware(app, token, on_error=_unauthorized)
    elif host in LOOPBACK:
        # Without a token the loopback is the protection, and a web page that got a name of its own
        # to resolve to it (DNS rebinding) must not get through.
        app = TrustedHostMiddleware(app, LOOPBACK, www_redirect=False)
    return RequestCounter(app)


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


class BearerToken(AuthenticationBackend):
    """Lets through what carries the token (``Authorization: Bearer …``), and probes."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        """Called by starlette for each request."""
        if conn.scope["path"] not in UNGUARDED:
            scheme, _, given = conn.headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
            if not right or scheme.lower() != "bearer":
                raise AuthenticationError("Send the server's token as `Authorization: Bearer …`.")
        return AuthCredentials(), SimpleUser("")


def _unauthorized(_conn: HTTPConnection, error: Exception) -> Response:
    return problem(401, "Token needed", str(error), headers={"WWW-Authenticate": "Bearer"})


class ConcurrencyLimit:
    """Answers at most so many requests at once; excess gets 503 with ``Retry-After``.

    uvicorn's ``limit_concurrency`` counts idle connections, probes and open streams, too.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most, self._free = app, most, asyncio.Semaphore(most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or _is_unlimited(scope):
            return await self._app(scope, receive, send)
        if self._free.locked():
            refused = problem(
                503,
                "Too many requests at once",
                f"The server answers {self._most} requests at once; repeat this one.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
            return await refused(scope, receive, send)
        async with self._free:
            with metrics.REQUESTS_IN_PROGRESS.track_inprogress():
                return await self._app(scope, receive, send)


class BodyLimit:
    """Reads a request's body before the app does, so that a large or slow one never reaches it."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(Request(scope, receive))
        except TimeoutError:
            slow = problem(408, "Too slow", "The request's body took too long.")
            return await slow(scope, receive, send)
        except ClientDisconnect:
            return None
        if body is None:
            large = problem(
                413,
                "Request too large",
                f"A request has at most {self._most:,} bytes here.",
                headers={"Connection": "close"},
            )
            return await large(scope, receive, send)
        return await self._app(scope, _replayed(body, receive), send)

    async def _read(self, request: Request) -> bytes | None:
        """The body; ``None``: it is too large."""
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._most:
            return None
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._most:
                return None
        return bytes(body)


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
