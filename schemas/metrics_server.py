"""The ``/metrics`` page of a worker."""

import os

import structlog
from prometheus_client import start_http_server

from schemas.errors import ConfigurationError
from schemas.settings import Settings

log = structlog.get_logger(__name__)


def serve(settings: Settings, role: str) -> int:
    """Serve ``/metrics`` in a thread; returns the port, and writes it where `retrail up` looks.

    The port is logged and written to ``<data_dir>/run/<role>-<pid>.metrics``.

    Raises:
        ConfigurationError: the port is taken.
    """
    try:
        server, _ = start_http_server(settings.metrics_port, addr=settings.metrics_host)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot serve metrics on {settings.metrics_host}:{settings.metrics_port}: "
            f"{error.strerror}. Set RETRAIL_METRICS_PORT to a free port, or to 0 for any."
        ) from error
    port = int(server.server_port)
    run = settings.data_dir / "run"
    run.mkdir(parents=True, exist_ok=True)
    (run / f"{role}-{os.getpid()}.metrics").write_text(str(port))
    log.info("serving metrics", role=role, url=f"http://{settings.metrics_host}:{port}/metrics")
    return port
