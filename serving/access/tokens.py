"""Tokens, the principals behind them, and their quotas.

A token is in the setting ``serve_token``, or its SHA-256 in a file::

    [[token]]
    sha256 = "…"                  # printf %s "$TOKEN" | sha256sum
    tenant = "search-team"
    agent = "support-bot"         # optional; by default the agent that a call names
    rights = ["search"]           # the default; see Right
    requests_per_minute = 600     # optional, of the tenant
    documents = "tenant"          # optional: only those of the tenant, and everyone's
"""

import hashlib
import math
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

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

from retrail_runtime import audit
from retrail_runtime.process import RateLimit
from schemas.base import describe
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from serving.handles import Agent, Caller
from serving.problems import Failure, RefusedError, problem

Right = Literal["search", "outcome", "operate"]
"""``search``: to search, and all that belongs to it; ``outcome``: to end a trajectory as correct or
incorrect; ``operate``: to read the metrics, and to send traces, which may hold any outcome.
"""
OPERATED = ("/metrics", "/v1/traces")
"""Paths that need the right ``operate``."""

PROBES = ("/healthz", "/readyz")
DOCUMENTATION = ("/docs", "/openapi.json", "/static-offline-docs/")
"""Shown without a token: the page asks for one, and sends it with the requests that it makes."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Principal(SimpleUser):
    """The callers of a token.

    Attributes:
        username: authenticates trajectories.
        tenant, agent: of all their calls; ``None``: as each call says.
        per_minute: requests of the tenant in a minute; ``None``: any number.
        rights: of the token.
        limited: whether they find only documents of their tenant, and everyone's.
    """

    username: str
    tenant: str | None = None
    agent: str | None = None
    per_minute: int | None = None
    rights: tuple[Right, ...] = get_args(Right)
    limited: bool = False


class _Token(BaseModel):
    """An entry of the file of tokens. Two of one tenant and agent are one principal."""

    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    tenant: Annotated[str, Field(min_length=1, max_length=128)]
    agent: Annotated[str, Field(max_length=128)] | None = None
    rights: tuple[Right, ...] = ("search",)
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    documents: Literal["all", "tenant"] = "all"

    def principal(self) -> Principal:
        name = hashlib.sha256(f"{self.tenant}\0{self.agent or ''}".encode()).hexdigest()
        limited, per_minute = self.documents == "tenant", self.requests_per_minute
        return Principal(name, self.tenant, self.agent, per_minute, self.rights, limited)


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
    principals = {entry.sha256: entry.principal() for entry in entries}
    if _digest(b"") in principals:
        wrong = "an entry has the sha256 of an empty text: $TOKEN was not set"
    elif len(principals) < len(entries):
        wrong = "two entries have the same sha256"
    else:
        return principals
    raise ConfigurationError(f"RETRAIL_SERVE_TOKENS_FILE={path}: {wrong}")


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
        digests = [_digest(token.strip().encode()) for token in found if token.strip()]
        self._own = {digest: Principal(digest) for digest in digests}
        self._settings, self._path = settings, settings.serve_tokens_file
        self._of_file: dict[str, Principal] = {}
        self._version: tuple[int, int] | None = None
        if self._path is not None:
            self._version, self._of_file = _version(self._path), read_tokens(self._path)

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        """Called by starlette for each request."""
        path = conn.scope["path"]
        if path in PROBES or path.startswith(DOCUMENTATION):
            return AuthCredentials(), SimpleUser("")
        self._reload()
        scheme, _, given = conn.headers.get("authorization", "").partition(" ")
        # Starlette decodes each byte of a header as a character of Latin-1.
        digest = _digest(given.strip().encode("latin-1"))
        found = self._own.get(digest) or self._of_file.get(digest)
        if found is None or scheme.lower() != "bearer":
            raise AuthenticationError("Send the server's token as `Authorization: Bearer …`.")
        return AuthCredentials(found.rights), found

    def _reload(self) -> None:
        if self._path is None or self._version == (version := _version(self._path)):
            return
        try:
            found = read_tokens(self._path)
        except ConfigurationError as error:
            if self._log_limit.allows():
                log.error("the earlier tokens count, the file cannot be read", reason=str(error))
            return
        added, removed = found.keys() - self._of_file.keys(), self._of_file.keys() - found.keys()
        self._version, self._of_file = version, found
        log.info("tokens were read", file=str(self._path), number=len(found))
        counts = {"tokens": len(found), "added": len(added), "removed": len(removed)}
        audit.write(self._settings, "token reload", file=str(self._path), **counts)


def _version(path: Path) -> tuple[int, int] | None:
    """Changes with the file; ``None``: there is none."""
    with suppress(OSError):
        state = path.stat()
        return state.st_mtime_ns, state.st_ino
    return None


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


class Rights:
    """Answers 403 to a request whose token lacks the right that its path needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            if isinstance(scope.get("user"), Principal):
                require(scope, "operate" if scope["path"] in OPERATED else "search")
        except RefusedError as error:
            return await error.failure.response()(scope, receive, send)
        return await self._app(scope, receive, send)


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


def require(scope: Scope, right: Right) -> None:
    """Return if a request's token has a right, or no token is needed.

    Raises:
        RefusedError: it lacks the right.
    """
    if "auth" in scope and right not in scope["auth"].scopes:
        text = f'This token lacks the right "{right}" (`rights` in the file of tokens).'
        raise RefusedError(Failure(403, "Right needed", text))


def principal_of(scope: Scope) -> str:
    """The principal of a request; empty without a token."""
    user = scope.get("user")
    return user.display_name if isinstance(user, SimpleUser) else ""


def caller_of(scope: Scope, named: Agent, trajectory_id: str) -> Caller:
    """The caller of a request: tenant and agent of its token; without them, those that it names."""
    user = scope.get("user")
    if isinstance(user, Principal) and user.tenant is not None:
        agent = Agent(user.agent or named.name, named.model, user.tenant)
        sees = user.tenant if user.limited else None
        return Caller(agent, trajectory_id, user.tenant, sees)
    address, _port = scope.get("client") or ("", 0)
    return Caller(named, trajectory_id, (address, named))
