"""``retrail mcp``."""

from enum import StrEnum
from typing import Annotated

import typer

from retrail_cli.serve import HOST, PORT, WITHOUT_TOKEN


class Transport(StrEnum):
    """How the client reaches the server."""

    stdio = "stdio"
    streamable_http = "streamable-http"


def mcp(
    transport: Annotated[
        Transport, typer.Option(help="stdio: the client starts this command.")
    ] = Transport.stdio,
    host: Annotated[str, HOST] = "127.0.0.1",
    port: Annotated[int, PORT] = 8081,
    without_token: Annotated[bool, WITHOUT_TOKEN] = False,
) -> None:
    """Give agents the tools search and open_document (Model Context Protocol).

    The server publishes what an agent does as trajectory events; a session is a trajectory. With
    streamable-http it listens at /mcp, under RETRAIL_SERVE_TOKEN as `retrail serve` does.

    \b
    Examples:
      claude mcp add search -- retrail mcp
      retrail mcp --transport streamable-http --port 8081

    \b
    As an entry of a client's configuration:
      {"mcpServers": {"search": {"command": "retrail", "args": ["mcp"],
                                 "env": {"RETRAIL_ENV_FILE": "/path/to/retrail.env"}}}}
    """
    import logging

    from retrail_runtime.kafka import require_broker
    from retrail_runtime.logging import configure
    from schemas.settings import load
    from schemas.topics import Topics
    from serving.api import mcp_server, running
    from serving.search.retriever import Retriever
    from serving.trajectories.publishing import Publisher

    settings = load()
    # On standard error: over stdio, standard output belongs to the protocol.
    configure(settings.log_level)
    logging.getLogger("mcp").setLevel(logging.WARNING)
    if transport is Transport.stdio:
        require_broker(settings, [Topics.of(settings).trajectory_events])
        retriever, publisher = Retriever(settings), Publisher(settings)
        mcp_server.serve_stdio(settings, retriever, publisher)
        return
    with running.listen(host, port, settings, without_token=without_token) as listener:
        require_broker(settings, [Topics.of(settings).trajectory_events])
        retriever, publisher = Retriever(settings), Publisher(settings)
        app = mcp_server.create_http_app(
            settings, lambda: running.serving(settings, retriever, publisher), host=host
        )
        url = f"{running.address(listener)}/mcp"
        typer.echo(f"Serving the tools search and open_document on {url} (Ctrl-C stops).", err=True)
        running.serve(app, listener, settings, host=host)
