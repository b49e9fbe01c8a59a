"""The HTTP API over a fake retriever, on a port of the loopback, and a client of it."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from retrail.http import SearchClient
from serving.guards import guarded
from tests.serving.fakes import World
from tests.serving.live import listening

TOKEN = "0123456789abcdef"


@pytest.fixture
def world() -> World:
    return World(serve_token=SecretStr(TOKEN))


@pytest.fixture
def client(world: World) -> Iterator[SearchClient]:
    app = guarded(world.app, world.settings, host="127.0.0.1")
    with (
        listening(app) as url,
        SearchClient(url, token=TOKEN, agent="me", model="qwen3-30b", tenant="t") as client,
    ):
        yield client
