"""Metrics that every worker has, and the page that serves them with its health.

::

    path       200                                        503
    /metrics   always
    /healthz   it works or waits                          a restart is the remedy
    /readyz    it does its share of the work              not yet, or not any more
"""

import itertools
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from retrail_runtime.files import atomic_write, private_folder
from schemas.errors import ConfigurationError
from schemas.settings import Settings

log = structlog.get_logger(__name__)

LAG_RECORDS = Gauge(
    "retrail_consumer_lag_records",
    "Records between what has been read and the end of the topic.",
    ["topic", "partition"],
)
INVALID_RECORDS = Counter(
    "retrail_consumer_invalid_records_total",
    "Records that break the contract of their topic: documents, outcomes, pairs, runs, releases.",
    ["stage"],
)
MIRROR_REBUILDS = Counter(
    "retrail_mirror_rebuilds_total",
    "Local copies of a topic that were removed and read again.",
    ["topic", "reason"],
)

DEPENDENCY_UP = Gauge(
    "retrail_dependency_up",
    "Whether the latest call to it was answered: kafka, milvus or registry.",
    ["dependency"],
)
ALIVE = Gauge("retrail_worker_alive", "0 while only a restart helps, as /healthz; else 1.")
ALIVE.set(1)
DISK_USED = Gauge(
    "retrail_data_dir_disk_used_ratio", "Used share of the disk that holds RETRAIL_DATA_DIR."
)


def at_zero(metric: Counter | Histogram, *values: Iterable[str]) -> None:
    """Show a series of the value 0 for each combination of label values.

    ``rate`` does not see the first increment of a series that appears with it.

    Args:
        values: all that are known of each label, in the order of the labels.
    """
    for labels in itertools.product(*values):
        metric.labels(*labels)


StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


SLOW_SECONDS = 45.0
"""Without progress, a trainer or index worker is not ready; a call to Milvus is retried for 30 s.
"""
STUCK_SECONDS = 600.0
"""Without progress, it needs a restart; a batch of a slow encoder or a long step takes less."""


@dataclass(frozen=True, slots=True)
class Health:
    """State of a worker; ``detail`` describes it. The default: no health check."""

    alive: bool = True
    ready: bool = True
    detail: str = "the process answers"


def serve_metrics(settings: Settings, role: str, health: Callable[[], Health] = Health) -> int:
    """Serve the page in a thread; returns the port.

    The port is logged, and written to ``<data_dir>/run/<role>-<pid>.metrics`` for `retrail up`.

    Args:
        health: called at each request, from another thread.

    Raises:
        ConfigurationError: the port is in use, or the data directory cannot be written.
    """
    try:
        server = make_server(
            settings.metrics_host,
            settings.metrics_port,
            application(health),
            _server_class(settings.metrics_host),
            _SilentHandler,
        )
    except OSError as error:
        raise ConfigurationError(
            f"Cannot serve metrics on {settings.metrics_host}:{settings.metrics_port}: "
            f"{error.strerror}. Set RETRAIL_METRICS_PORT to a free port, or to 0 for any."
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    port = int(server.server_port)
    run = settings.data_dir / "run"
    try:
        private_folder(run)
        atomic_write(run / f"{role}-{os.getpid()}.metrics", str(port))
    except OSError as error:
        raise ConfigurationError(f"Cannot write {run}: {error.strerror}.") from error
    ALIVE.set_function(lambda: health().alive)
    DISK_USED.set_function(lambda: _disk_used(settings.data_dir))
    log.info("serving metrics", role=role, url=f"http://{settings.metrics_host}:{port}/metrics")
    return port


def _disk_used(path: Path) -> float:
    disk = shutil.disk_usage(path)
    return 1 - disk.free / disk.total


def application(health: Callable[[], Health] = Health) -> Application:
    """The pages as a WSGI application over the default registry."""
    metrics: Application = make_wsgi_app()

    def page(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path not in ("/healthz", "/readyz"):
            pages = "The pages are /metrics, /healthz and /readyz."
            return _answer(start_response, HTTPStatus.NOT_FOUND, pages)
        found = health()
        good = found.alive and (found.ready or path == "/healthz")
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return _answer(start_response, status, found.detail)

    return page


def _answer(start_response: StartResponse, status: HTTPStatus, text: str) -> list[bytes]:
    body = f"{text}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


def _server_class(host: str) -> type[ThreadingWSGIServer]:
    """A server for the address family of ``host``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return type("_Server", (ThreadingWSGIServer,), {"address_family": family})


class _SilentHandler(WSGIRequestHandler):
    """Requests are not logged."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
