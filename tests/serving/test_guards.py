"""Token, host names, origins, and the limits of bodies and connections."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import create_autospec
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from prometheus_client import REGISTRY
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from schemas.settings import Settings
from serving import guards
from serving.guards import LimitedProtocol
from tests.serving.fakes import World
from tests.serving.live import listening
from tests.waiting import eventually

TOKEN = "correct horse"
CLOSED_FOR_HEADER = ("retrail_serve_connections_closed_total", {"reason": "header"})


class Echo:
    """Answers with the length of the body, once it is let."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.reached = 0
        self._counted = asyncio.Condition()

    async def is_reached(self, times: int) -> None:
        async with asyncio.timeout(10), self._counted:
            await self._counted.wait_for(lambda: self.reached >= times)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._counted:
            self.reached += 1
            self._counted.notify_all()
        message = await receive()
        assert not message.get("more_body")
        await self.may.wait()
        body = str(len(message.get("body", b""))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def client(app: ASGIApp, base: str = "http://127.0.0.1:8080") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=base)


def guarded(
    echo: ASGIApp,
    host: str = "127.0.0.1",
    *,
    max_body: int = guards.MAX_BODY,
    body_seconds: float = 30.0,
    **settings: Any,
) -> ASGIApp:
    return guards.guarded(
        echo, Settings(**settings), host=host, max_body=max_body, body_seconds=body_seconds
    )


def problem_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code
    assert found["title"]
    assert found["detail"]
    return found


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer \u00fc", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
    ],
)
def test_only_the_token_opens(header: str | None, status: int) -> None:
    async def go() -> None:
        echo = Echo()
        headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
        async with client(guarded(echo, "0.0.0.0", serve_token=SecretStr(TOKEN))) as http:
            response = await http.post("/v1/search", headers=headers)
            assert response.status_code == status
            assert echo.reached == (status == 200)
            if status == 401:
                assert response.headers["www-authenticate"] == "Bearer"
                problem_of(response)
            assert (await http.get("/metrics")).status_code == 401
            for probe in guards.PROBES:
                assert (await http.get(probe)).status_code == 200

    asyncio.run(go())


@pytest.mark.parametrize(
    ("base", "status"),
    [
        ("http://127.0.0.1:8080", 200),
        ("http://localhost", 200),
        ("http://LOCALHOST:1", 200),
        ("http://[::1]:8080", 200),
        ("http://evil.example:8080", 400),
        ("http://127.0.0.1.evil.example", 400),
    ],
)
def test_without_a_token_only_names_of_the_loopback_are_answered(base: str, status: int) -> None:
    async def go() -> None:
        async with client(guarded(Echo()), base) as http:
            assert (await http.post("/v1/search")).status_code == status
        async with client(guarded(Echo(), serve_token=SecretStr(TOKEN)), base) as http:
            answer = await http.post("/v1/search", headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status_code == 200

    asyncio.run(go())


def test_a_body_over_the_limit_is_refused_declared_or_not() -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 10

    async def go() -> None:
        echo = Echo()
        async with client(guarded(echo, max_body=100)) as http:
            assert (await http.post("/v1/open", content=b"x" * 100)).text == "100"
            assert (await http.post("/v1/open", content=chunks(10))).text == "100"
            assert echo.reached == 2
            for content in (b"x" * 101, chunks(11)):
                response = await http.post("/v1/open", content=content)
                assert response.status_code == 413
                assert "100 bytes" in problem_of(response)["detail"]
            assert echo.reached == 2

    asyncio.run(go())


def test_a_body_that_does_not_come_is_given_up() -> None:
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/search",
        "headers": [(b"host", b"localhost")],
    }
    asyncio.run(guarded(Echo(), body_seconds=0.05)(scope, never, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["status"] == 408


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8080", 200),
        ("http://localhost:3000", 200),
        ("https://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("http://[evil", 403),
        ("null", 403),
    ],
)
def test_pages_of_another_host_are_refused_with_and_without_a_token(
    origin: str, status: int
) -> None:
    async def go() -> None:
        for app in (guarded(Echo()), guarded(Echo(), "0.0.0.0", serve_token=SecretStr(TOKEN))):
            async with client(app) as http:
                headers = {"Origin": origin, "Authorization": f"Bearer {TOKEN}"}
                answer = await http.post("/v1/search", headers=headers)
                assert answer.status_code == status
                if status == 403:
                    problem_of(answer)
                assert (await http.get("/healthz", headers=headers)).status_code == 200

    asyncio.run(go())


# -- Connections -----------------------------------------------------------------------------------


HALF = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SLOW_BODY = HALF + b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"


def closed(connection: socket.socket) -> bool:
    """Whether the server closed a connection, with or without an answer."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@contextmanager
def connections(url: str, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Clients that sent the beginning of a request."""
    address = (urlsplit(url).hostname, urlsplit(url).port)
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(count)]
        for connection in opened:
            connection.sendall(sent)
        yield opened


def test_case_slow_bodies_leave_the_others_served() -> None:
    """70 connections send ``Content-Length: 500`` and one byte."""
    world = World(serve_concurrency=4)
    with (
        listening(guarded(world.app, body_seconds=1.0)) as url,
        connections(url, 70, SLOW_BODY) as slow,
    ):
        for _ in range(5):
            answer = httpx.post(f"{url}/v1/search", json={"query": "gzip"})
            assert answer.status_code == 200
        assert b" 408 " in slow[0].recv(65536)
        assert closed(slow[0])


@pytest.mark.parametrize("sent", [b"", HALF, SLOW_BODY], ids=["nothing", "half header", "no body"])
def test_beyond_the_limit_the_connection_that_waited_longest_is_closed(sent: bytes) -> None:
    world = World()
    with (
        listening(guarded(world.app), most=10) as url,
        connections(url, 40, sent) as opened,
    ):
        assert closed(opened[0])
        assert httpx.get(f"{url}/healthz").status_code == 200
        opened[-1].settimeout(0.1)
        assert not closed(opened[-1])


def test_a_connection_waits_from_when_it_is_made() -> None:
    """asyncio makes the protocol first; another one's data may arrive in between."""

    async def go() -> None:
        config, state = uvicorn.Config(guarded(Echo()), log_config=None), ServerState()
        config.load()
        old, new = (LimitedProtocol(config, state, {}, most=1) for _ in range(2))
        transports = [create_autospec(asyncio.Transport) for _ in range(2)]
        old.connection_made(transports[0])
        old.data_received(SLOW_BODY)
        new.connection_made(transports[1])
        assert [each.abort.called for each in transports] == [True, False]
        old.connection_lost(None)
        new.connection_lost(None)

    asyncio.run(go())


def test_a_header_that_does_not_arrive_in_time_closes_the_connection() -> None:
    world = World()
    before = REGISTRY.get_sample_value(*CLOSED_FOR_HEADER) or 0
    with listening(guarded(world.app), header_seconds=0.3) as url:
        with connections(url, 2, HALF) as opened:
            assert all(map(closed, opened))
        with httpx.Client() as http:
            # Also on a connection that had a request before.
            assert http.get(f"{url}/healthz").status_code == 200
        with connections(url, 1, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as [used]:
            assert b" 200 " in used.recv(65536)
            used.sendall(HALF)
            assert closed(used)
    assert REGISTRY.get_sample_value(*CLOSED_FOR_HEADER) == before + 3


def test_a_request_in_progress_is_not_cut_off() -> None:
    world = World()
    world.retriever.goes_on.clear()
    with (
        listening(guarded(world.app), most=3, header_seconds=0.2) as url,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(httpx.post, f"{url}/v1/search", json={"query": "gzip"}, timeout=20)
        eventually(lambda: world.retriever.batches)
        with connections(url, 10, HALF) as opened:
            assert all(map(closed, opened))
        world.retriever.goes_on.set()
        assert answer.result().status_code == 200
