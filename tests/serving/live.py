"""An ASGI app on a free port of the loopback, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from schemas.settings import Settings
from serving.running import address, listen
from tests.waiting import eventually


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Serve ``app``; yields its URL."""
    with listen("127.0.0.1", 0, Settings()) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
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
