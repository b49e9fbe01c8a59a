"""Tokens, the principals behind them, and their quotas.

A token is in the setting ``serve_token``, or its SHA-256 in a file::

    [[token]]
    sha256 = "…"                  # printf %s "$TOKEN" | sha256sum
    tenant = "search-team"
    agent = "support-bot"         # optional: else the agent that a call names
    requests_per_minute = 600     # optional, of the tenant
"""

import hashlib
import math
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
)
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from retrail_runtime.process import RateLimit
from schemas.base import describe
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from serving.handles import Agent, Caller
from serving.problems import problem

PROBES = ("/healthz", "/readyz")
DOCUMENTATION = ("/docs", "/openapi.json", "/static-offline-docs/")
"""Shown without a token: the page asks for one, and sends it with the requests that it makes."""

log = structlog.get_logger(__name__)


class Principal(SimpleUser):
    """The callers of a token.

    Attributes:
        username: authenticates trajectories.
        tenant, agent: of all their calls; ``None``: as each call says.
        per_minute: requests of the tenant in a minute; ``None``: any number.
    """

    def __init__(
        self,
        username: str,
        tenant: str | None = None,
        agent: str | None = None,
        per_minute: int | None = None,
    ) -> None:
        super().__init__(username)
        self.tenant, self.agent, self.per_minute = tenant, agent, per_minute


class _Token(BaseModel):
    """An entry of the file of tokens. Two of one tenant and agent are one principal."""

    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    tenant: Annotated[str, Field(min_length=1, max_length=128)]
    agent: Annotated[str, Field(max_length=128)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None

    def principal(self) -> Principal:
        name = hashlib.sha256(f"{self.tenant}\0{self.agent or ''}".encode()).hexdigest()
        return Principal(name, self.tenant, self.agent, self.requests_per_minute)


def read_tokens(path: Path) -> dict[str, Principal]:
    """The principals of a file of tokens, by the SHA-256 of their tokens.

    Raises:
        ConfigurationError: the file cannot be read, or an entry is wrong.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = TypeAdapter(list[_Token]).validate_python(found.get("token", []))
    except (OSError, ValueError) as error:
        reason = describe(error.errors()) if isinstance(error, ValidationError) else error
        raise ConfigurationError(f"RETRAIL_SERVE_TOKENS_FILE={path}: {reason}") from error
    return {entry.sha256: entry.principal() for entry in entries}


class Tokens(AuthenticationBackend):
    """Accepts requests with a token (``Authorization: Bearer …``), probes and documentation.

    The file is read again when it changes; while it cannot be read, the tokens before count.

    Raises:
        ConfigurationError: the file cannot be read, or an entry is wrong.
    """

    _log_limit = RateLimit(60.0)

    def __init__(self, settings: Settings) -> None:
        secret = settings.serve_token
        found = (secret.get_secret_value() if secret else "").split(",")
        digests = [_digest(token.strip()) for token in found if token.strip()]
        self._own = {digest: Principal(digest) for digest in digests}
        self._path = settings.serve_tokens_file
        self._of_file: dict[str, Principal] = {}
        self._read_at: tuple[int, int] | None = None
        if self._path is not None:
            self._of_file = read_tokens(self._path)

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        """Called by starlette for each request."""
        path = conn.scope["path"]
        if path in PROBES or path.startswith(DOCUMENTATION):
            return AuthCredentials(), SimpleUser("")
        self._reload()
        scheme, _, given = conn.headers.get("authorization", "").partition(" ")
        digest = _digest(given.strip())
        found = self._own.get(digest) or self._of_file.get(digest)
        if found is None or scheme.lower() != "bearer":
            raise AuthenticationError("Send the server's token as `Authorization: Bearer …`.")
        return AuthCredentials(), found

    def _reload(self) -> None:
        if self._path is None:
            return
        try:
            state = self._path.stat()
            version = (state.st_mtime_ns, state.st_ino)
            if version == self._read_at:
                return
            self._read_at, self._of_file = version, read_tokens(self._path)
            log.info("tokens were read", file=str(self._path), number=len(self._of_file))
        except (OSError, ConfigurationError) as error:
            if self._log_limit.allows():
                log.error("the earlier tokens count, the file cannot be read", reason=str(error))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("latin-1", "replace")).hexdigest()


class Quota:
    """Answers 429 to a tenant's requests above its number a minute; a sixth may come at once."""

    def __init__(self, app: ASGIApp, now: Callable[[], float] = time.monotonic) -> None:
        self._app, self._now = app, now
        self._levels: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        user = scope.get("user")
        if isinstance(user, Principal) and user.tenant and user.per_minute:
            wait = self._wait(user.tenant, user.per_minute)
            if wait > 0:
                text = f"The tenant has {user.per_minute} requests a minute."
                headers = {"Retry-After": str(math.ceil(wait))}
                over = problem(429, "Too many requests", text, headers=headers)
                return await over(scope, receive, send)
        return await self._app(scope, receive, send)

    def _wait(self, tenant: str, per_minute: int) -> float:
        """Seconds until the tenant may send a request; 0 takes one."""
        now, most = self._now(), max(1.0, per_minute / 6)
        level, at = self._levels.get(tenant, (most, now))
        level = min(most, level + (now - at) * per_minute / 60)
        taken = level >= 1
        self._levels[tenant] = (level - taken, now)
        return 0.0 if taken else (1 - level) * 60 / per_minute


def principal_of(scope: Scope) -> str:
    """The principal of a request; empty without a token."""
    user = scope.get("user")
    return user.display_name if isinstance(user, SimpleUser) else ""


def caller_of(scope: Scope, named: Agent, trajectory_id: str) -> Caller:
    """The caller of a request: tenant and agent of its token, else those that it names."""
    user = scope.get("user")
    if isinstance(user, Principal) and user.tenant is not None:
        agent = Agent(user.agent or named.name, named.model, user.tenant)
        return Caller(agent, trajectory_id, user.tenant)
    address, _port = scope.get("client") or ("", 0)
    return Caller(named, trajectory_id, (address, named))
