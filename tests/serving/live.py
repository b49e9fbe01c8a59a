"""An ASGI app on a free port of the loopback, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from schemas.settings import Settings
from serving.guards import HEADER_SECONDS, LimitedProtocol
from serving.running import address, listen
from tests.waiting import eventually


@contextmanager
def listening(
    app: ASGIApp, *, most: int = 1000, header_seconds: float = HEADER_SECONDS
) -> Iterator[str]:
    """Serve ``app`` within limits of connections; yields its URL."""
    with listen("127.0.0.1", 0, Settings()) as listener:
        protocol = partial(LimitedProtocol, most=most, header_seconds=header_seconds)
        config = uvicorn.Config(app, http=protocol, log_config=None, lifespan="on")  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive(), what="start")
            assert server.started
            yield address(listener)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"
