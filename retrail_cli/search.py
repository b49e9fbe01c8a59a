"""``retrail search``, ``retrail serve`` and ``retrail mcp``."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from retrail_cli.output import counted, print_table

if TYPE_CHECKING:
    from schemas.settings import Settings

SNIPPET = 200
BROKER_SECONDS = 5.0
"""Seconds that the start of a server waits for Kafka."""

Transport = Literal["stdio", "streamable-http"]
Toolset = Literal["retrail", "openai"]

HOST = typer.Option(help="Address to listen on.")
PORT = typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
WITHOUT_TOKEN = typer.Option(
    "--without-token", help="Allow remote requests without RETRAIL_SERVE_TOKEN."
)


def search(
    query: Annotated[str, typer.Argument(help="The query.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many hits.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Search the live index, as agents do.

    A `retrail serve` that runs on the same data directory answers, which takes less than a second;
    without one the model is loaded first. The search is no event of a trajectory.

    \b
    Examples:
      retrail search "how do I open a gzip file" -k 5
      retrail search "gzip" --json | jq '.hits[].doc_id'
    """
    if not query.strip():
        raise typer.BadParameter("The query is blank.", param_hint="query")
    from schemas.settings import load

    found = _answer(load(), query, k)
    note = found.pop("note", None)
    if as_json:
        typer.echo(json.dumps(found | ({"note": note} if note else {}), ensure_ascii=False))
        return
    rows = (
        (
            str(hit["rank"]),
            f"{hit['score']:.4f}",
            hit["doc_id"],
            " ".join(f"{hit['title']} {hit['text']}".split())[:SNIPPET],
        )
        for hit in found["hits"]
    )
    print_table(("rank", "score", "document", "text"), rows)
    hits = counted(len(found["hits"]), "hit", "hits")
    typer.echo(f"{hits} from release {found['retriever_version']}.{(note and f' {note}') or ''}")


def _answer(settings: "Settings", query: str, k: int) -> dict[str, Any]:
    """Version, hits and note: from a server on this machine, or without one."""
    from serving.access import local

    if (served := local.search(settings, query, k)) is not None:
        fields = ("doc_id", "rank", "score", "title", "text", "url")
        hits = [{name: hit.get(name) for name in fields} for hit in served["hits"]]
        version = served["retriever_version"]
        return {"retriever_version": version, "hits": hits, "note": served.get("note")}
    from dataclasses import asdict

    from serving.retriever import Retriever

    with Retriever(settings) as retriever:
        return asdict(retriever.search(query, k))


def serve(
    host: Annotated[str, HOST] = "127.0.0.1",
    port: Annotated[int, PORT] = 8080,
    without_token: Annotated[bool, WITHOUT_TOKEN] = False,
) -> None:
    """Serve search over HTTP and publish the callers' trajectories.

    Agents search (POST /v1/search) and open documents (GET /v1/documents/ID); the server publishes
    each step as a trajectory event, so agents need no client. Responses have the header
    Retrail-Trajectory; send it with the next request of the same task. /docs and /openapi.json
    describe the API; /healthz, /readyz and /metrics are for operators. /v1/traces takes traces of
    OpenTelemetry (OTLP over HTTP) for `retrail worker otlp`.

    Beyond the loopback interface every request needs RETRAIL_SERVE_TOKEN ("Authorization: Bearer
    …"). Several servers behind a load balancer share RETRAIL_SERVE_SECRET or the file of it.

    \b
    Examples:
      retrail serve
      RETRAIL_SERVE_TOKEN=$(openssl rand -hex 32) retrail serve --host 0.0.0.0
      curl -s localhost:8080/v1/search -H 'Content-Type: application/json' \\
           -d '{"query": "how do I open a gzip file", "k": 5}'
    """
    from functools import partial

    from serving.http_api import create_app
    from serving.otlp import Traces

    settings = _settings()
    create = partial(create_app, traces=Traces(settings))
    _listen(settings, host, port, without_token, create, "Serving search on {}", found=True)


def mcp(
    transport: Annotated[
        Transport, typer.Option(help="stdio: the client starts this command.")
    ] = "stdio",
    host: Annotated[str, HOST] = "127.0.0.1",
    port: Annotated[int, PORT] = 8081,
    without_token: Annotated[bool, WITHOUT_TOKEN] = False,
    tools: Annotated[
        Toolset, typer.Option(help="openai: search and fetch, in the shape of ChatGPT.")
    ] = "retrail",
) -> None:
    """Serve search, open_document and reason over the Model Context Protocol.

    The server publishes each call as a trajectory event. With streamable-http it listens at /mcp
    and requires RETRAIL_SERVE_TOKEN as `retrail serve` does.

    \b
    Examples:
      claude mcp add search -- retrail mcp
      retrail mcp --transport streamable-http --port 8081

    \b
    In the configuration of a client:
      {"mcpServers": {"search": {"command": "retrail", "args": ["mcp"],
                                 "env": {"RETRAIL_ENV_FILE": "/path/to/retrail.env"}}}}
    """
    import logging
    from functools import partial

    from serving.mcp.server import create_http_app
    from serving.mcp.stdio import serve_stdio

    # Clients show what a stdio server logs.
    settings = _settings(None if transport == "streamable-http" else "WARNING")
    logging.getLogger("mcp").setLevel(logging.WARNING)
    if transport == "streamable-http":
        create_app = partial(create_http_app, host=host, toolset=tools)
        text = "Serving MCP on {}/mcp"
        _listen(settings, host, port, without_token, create_app, text)
    else:
        serve_stdio(settings, *_parts(settings), toolset=tools)


def _settings(level: str | None = None) -> "Settings":
    """The settings; ``level``: of the log, unless RETRAIL_LOG_LEVEL is set."""
    from retrail_runtime.process import configure
    from schemas.settings import load

    settings = load()
    # On standard error: over stdio, standard output belongs to the protocol.
    if level is None or "log_level" in settings.model_fields_set:
        level = settings.log_level
    configure(level)
    return settings


def _parts(settings: "Settings") -> tuple[Any, Any, bytes]:
    """Retriever, publisher and the secret of trajectories.

    While Kafka does not answer, searches are served all the same: events wait in the queue.
    """
    from retrail_runtime.kafka import require_broker, require_rights
    from schemas.errors import BrokerUnavailableError
    from schemas.topics import Topics
    from serving import running
    from serving.retriever import Retriever

    key = running.secret(settings)
    try:
        require_broker(settings, [Topics.of(settings).trajectory_events], timeout=BROKER_SECONDS)
        require_rights(settings, "serve")
    except BrokerUnavailableError as error:
        running.log.warning("serving without Kafka until it answers", reason=str(error))
    # A little less than the server's own deadline, so that the cause is reported.
    seconds = 0.9 * settings.serve_deadline_seconds
    return Retriever(settings, seconds=seconds), running.publisher(settings), key


def _listen(
    settings: "Settings",
    host: str,
    port: int,
    without_token: bool,
    create_app: Callable[[Callable[[], AbstractAsyncContextManager[Any]]], Any],
    text: str,
    *,
    found: bool = False,
) -> None:
    """Serve an application until a signal ends it; ``found``: by `retrail search`."""
    from contextlib import asynccontextmanager, nullcontext

    from serving import running
    from serving.access import local

    with running.listen(host, port, settings, without_token=without_token) as listener:
        url, parts = running.address(listener), _parts(settings)

        @asynccontextmanager
        async def service() -> AsyncIterator[Any]:
            with local.announced(settings, url) if found else nullcontext():
                async with running.serving(settings, *parts) as started:
                    yield started

        typer.echo(f"{text.format(url)} (Ctrl-C stops).", err=True)
        running.serve(create_app(service), listener, settings, host=host)
