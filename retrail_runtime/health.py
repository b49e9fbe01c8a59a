"""Health of a worker, and the page that serves it with the metrics.

::

    path       200                                        503
    /metrics   always
    /healthz   it works or waits                          a restart is the remedy
    /readyz    it does its share of the work              not yet, or not any more
"""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from retrail_runtime.files import atomic_write, private_folder
from retrail_runtime.metrics import ALIVE, DEPENDENCY_UP, DISK_USED
from schemas.errors import ConfigurationError
from schemas.settings import Settings

log = structlog.get_logger(__name__)

SLOW_SECONDS = 20.0
"""Without progress for this time a worker is not ready. A call to Milvus or Kafka takes up to 30 s.
"""
STUCK_SECONDS = 600.0
"""A trainer or index worker without progress needs a restart. One batch of a slow encoder or one
long step of a run takes less."""


class Health(NamedTuple):
    """Whether a worker is alive and ready; ``detail`` describes its state."""

    alive: bool
    ready: bool
    detail: str


class State(Enum):
    """The states of all workers. The first one in this order that applies is a worker's state."""

    SHUTTING_DOWN = Health(False, False, "shutting down after a failure")
    EVENT_LOOP_BLOCKED = Health(False, False, "the event loop has been blocked for too long")
    CONSUMER_UNRESPONSIVE = Health(False, False, "the consumer's thread does not answer")
    STALLED = Health(False, False, "no record is read although there are more")
    STUCK = Health(False, False, "stuck: a run, a build or the loop around it makes no progress")
    SLOW = Health(True, False, "a call or a step takes long")
    TOPIC_MISSING = Health(True, False, "waiting: the topic does not exist")
    UNASSIGNED = Health(True, False, "waiting for partitions: it owns none")
    STARTING = Health(True, False, "starting")
    REFUSING = Health(True, False, "judged events are refused: some before them are missing")
    RECOVERING = Health(True, False, "reading again what open trajectories need")
    NO_RELEASE = Health(True, False, "waiting for the first release, which index registers")
    STANDING_BY = Health(True, True, "standing by: another trainer is active")
    BUILDING = Health(True, True, "building the live release; another build serves")
    WORKING = Health(True, True, "working")

    @classmethod
    def of(cls, applies: Mapping["State", object]) -> "State":
        """The first state whose value is true; else :attr:`WORKING`."""
        return next((state for state in cls if applies.get(state)), cls.WORKING)


def unanswered() -> list[str]:
    """The dependencies whose latest call was not answered."""
    samples = (sample for metric in DEPENDENCY_UP.collect() for sample in metric.samples)
    return sorted(sample.labels["dependency"] for sample in samples if not sample.value)


def serve_metrics(settings: Settings, role: str, health: Callable[[], State]) -> int:
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
    ALIVE.set_function(lambda: health().value.alive)
    show_disk(settings.data_dir)
    log.info("serving metrics", role=role, url=f"http://{settings.metrics_host}:{port}/metrics")
    return port


def show_disk(folder: Path) -> None:
    """Show the use of the disk that holds a folder, which may not exist yet."""

    def used() -> float:
        disk = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists()))
        return 1 - disk.free / disk.total

    DISK_USED.set_function(used)


def application(health: Callable[[], State]) -> WSGIApplication:
    """The pages as a WSGI application over the default registry.

    A worker that is alive and waits for a dependency is not ready.
    """
    metrics: WSGIApplication = make_wsgi_app()

    def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path not in ("/healthz", "/readyz"):
            pages = "The pages are /metrics, /healthz and /readyz."
            return _answer(start_response, HTTPStatus.NOT_FOUND, pages)
        found = health().value
        if found.alive and (down := unanswered()):
            found = Health(True, False, f"waiting for {', '.join(down)}")
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
