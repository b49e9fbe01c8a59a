"""The search service over the live index, and the server process around it."""

import asyncio
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import structlog
import uvicorn
from prometheus_client import REGISTRY
from starlette.types import ASGIApp

from retrail import Publisher, Timeout
from retrail.trajectory import TextPolicy
from retrail_runtime.health import show_disk
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from serving.async_retriever import AsyncRetriever
from serving.guards import LOOPBACK, LimitedProtocol, accepted_at_once, connection_limit, guarded
from serving.handles import DEFAULT_AGENT
from serving.metrics import EventCounts
from serving.service import SearchService

if TYPE_CHECKING:
    from serving.retriever import Retriever

MIN_SECRET = 16
"""Bytes of a secret."""
STOP_SECONDS = 5
"""Seconds that requests in progress may take when the server stops."""

log = structlog.get_logger(__name__)


def publisher(settings: Settings) -> Publisher:
    """Publishes the trajectories of all agents.

    Its queue never blocks a search: events that cannot be published are dropped, logged, counted.

    Raises:
        ConfigurationError: a function that redacts texts cannot be imported.
    """
    reasoning_text = _text_policy("serve_reasoning_text", settings.serve_reasoning_text)
    return Publisher(
        DEFAULT_AGENT,
        topic_prefix=settings.topic_prefix,
        query_text=_text_policy("serve_query_text", settings.serve_query_text),
        reasoning_text=reasoning_text,
        answer_text=reasoning_text,
        timeout=Timeout(block=0.0),
        # Callers wait for acknowledgements, so no event waits for others of its batch.
        kafka=settings.kafka(client_id="retrail-serving", linger_ms=0),
    )


def _text_policy(setting: str, value: str) -> TextPolicy:
    if value == "send":
        return "send"
    if value == "withhold":
        return "withhold"
    try:
        hook = resolve_name(value)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"RETRAIL_{setting.upper()}={value} cannot be imported: {error}. It is send, withhold, "
            "or module:function on this process's PYTHONPATH."
        ) from error
    if not callable(hook):
        raise ConfigurationError(f"RETRAIL_{setting.upper()}={value} is no function.")
    found: TextPolicy = hook
    return found


def secret(settings: Settings) -> bytes:
    """The key of trajectories' handles: from the setting, the file, or drawn at random.

    Raises:
        ConfigurationError: the file cannot be read, or is too short.
    """
    if settings.serve_secret is not None:
        return settings.serve_secret.get_secret_value().encode()
    path = settings.serve_secret_path
    try:
        found = path.read_bytes().strip()
    except OSError as error:
        if settings.serve_secret_file is not None:
            raise ConfigurationError(
                f"RETRAIL_SERVE_SECRET_FILE={path} cannot be read: {error.strerror}."
            ) from error
        log.warning(
            "no RETRAIL_SERVE_SECRET: trajectories do not continue on other replicas or after a "
            "restart of this server",
            looked_at=str(path),
        )
        return secrets.token_bytes(32)
    if len(found) < MIN_SECRET:
        raise ConfigurationError(
            f"{path} has {len(found)} bytes; at least {MIN_SECRET} are needed."
        )
    return found


@asynccontextmanager
async def serving(
    settings: Settings, retriever: "Retriever", publisher: Publisher, key: bytes
) -> AsyncIterator[SearchService]:
    """A service for the running event loop.

    At the end it closes the retriever and delivers the events of the calls.

    Args:
        key: see :func:`secret`.
    """
    counts = EventCounts(lambda: publisher.stats)
    REGISTRY.register(counts)
    try:
        searches = AsyncRetriever(retriever, seconds=settings.serve_deadline_seconds)
        service = SearchService(settings, searches, publisher, key)
        async with service.running():
            yield service
    finally:
        await asyncio.to_thread(publisher.close)
        REGISTRY.unregister(counts)
        if lost := publisher.stats.lost:
            log.error("trajectory events were lost", count=lost)


def listen(
    host: str, port: int, settings: Settings, *, without_token: bool = False
) -> socket.socket:
    """A socket to listen on, opened before anything slow starts; port 0: any free one.

    Raises:
        ConfigurationError: the address is taken, or it is not the loopback and there is no token.
    """
    has_tokens = settings.serve_token is not None or settings.serve_tokens_file is not None
    if not has_tokens and host not in LOOPBACK and not without_token:
        raise ConfigurationError(
            f"Others could search through {host} without a token. Set RETRAIL_SERVE_TOKEN to a "
            "long random one (`openssl rand -hex 32`), serve on 127.0.0.1, or add --without-token "
            "if a proxy in front of this server authenticates callers."
        )
    tokens = settings.serve_token.get_secret_value().split(",") if settings.serve_token else []
    if any(len(token.strip()) < MIN_SECRET for token in tokens):
        log.warning("a token of RETRAIL_SERVE_TOKEN has fewer than 16 characters")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
        # asyncio turns Nagle's delay (40 ms an answer) off only where it sees that this is TCP.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, found.detach())
    except OSError as error:
        raise ConfigurationError(
            f"Cannot serve on {host}:{port}: {error.strerror}. Choose another --port, or 0 for any "
            "that is free."
        ) from error


def serve(app: ASGIApp, listener: socket.socket, settings: Settings, *, host: str) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are answered.

    Raises:
        SystemExit: with 0, after SIGTERM.
    """
    show_disk(settings.data_dir)
    most = connection_limit()
    config = uvicorn.Config(
        guarded(app, settings, host=host),
        http=partial(LimitedProtocol, most=most),  # type: ignore[arg-type]
        ws="none",
        backlog=accepted_at_once(most),
        log_config=None,
        access_log=settings.log_level == "DEBUG",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        lifespan="on",
    )
    # uvicorn raises the signal again once it has stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
