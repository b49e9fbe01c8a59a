"""``retrail serve``."""

from typing import Annotated

import typer

HOST = typer.Option(help="Address to listen on.")
PORT = typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
WITHOUT_TOKEN = typer.Option(
    "--without-token", help="Serve beyond this machine without RETRAIL_SERVE_TOKEN."
)


def serve(
    host: Annotated[str, HOST] = "127.0.0.1",
    port: Annotated[int, PORT] = 8080,
    without_token: Annotated[bool, WITHOUT_TOKEN] = False,
) -> None:
    """Serve search over HTTP, and publish what agents do with it.

    Agents search (POST /v1/search) and open documents (GET /v1/documents/ID); the server publishes
    each step as a trajectory event, so agents behind it need no client. The answers carry the
    header Retrail-Trajectory; send it with the next call of the same task. The API is described at
    /docs and /openapi.json; /healthz, /readyz and /metrics are for operators.

    Beyond the loopback every request must carry RETRAIL_SERVE_TOKEN ("Authorization: Bearer …").
    Several servers need a balancer that keeps a trajectory on one of them, by that header.

    \b
    Examples:
      retrail serve
      RETRAIL_SERVE_TOKEN=$(openssl rand -hex 32) retrail serve --host 0.0.0.0
      curl -s localhost:8080/v1/search -H 'Content-Type: application/json' \\
           -d '{"query": "how do I open a gzip file", "k": 5}'
    """
    from retrail_runtime.kafka import require_broker
    from retrail_runtime.logging import configure
    from schemas.settings import load
    from schemas.topics import Topics
    from serving.api import running
    from serving.api.http_api import create_app
    from serving.search.retriever import Retriever
    from serving.trajectories.publishing import Publisher

    settings = load()
    configure(settings.log_level)
    with running.listen(host, port, settings, without_token=without_token) as listener:
        require_broker(settings, [Topics.of(settings).trajectory_events])
        retriever, publisher = Retriever(settings), Publisher(settings)
        app = create_app(settings, lambda: running.serving(settings, retriever, publisher))
        typer.echo(f"Serving search on {running.address(listener)} (Ctrl-C stops).", err=True)
        running.serve(app, listener, settings, host=host)
