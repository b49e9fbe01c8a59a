"""The token, the limits and the host names, around an app that counts what reached it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.settings import Settings
from serving import guards

TOKEN = "correct horse"


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
    echo: Echo,
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
            for probe in guards.UNGUARDED:
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


def test_one_request_too_many_gets_retry_after_and_probes_get_through() -> None:
    async def go() -> None:
        echo = Echo()
        echo.may.clear()
        async with client(guarded(echo, serve_concurrency=2)) as http:
            under_way = [asyncio.create_task(http.post("/v1/search")) for _ in range(2)]
            await echo.is_reached(2)
            refused = await http.post("/v1/search")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            problem_of(refused)
            assert (await http.get("/v1/documents/a")).status_code == 503
            probe = asyncio.create_task(http.get("/healthz"))
            await echo.is_reached(3)
            echo.may.set()
            assert [r.status_code for r in await asyncio.gather(*under_way, probe)] == [200] * 3
            assert (await http.post("/v1/search")).status_code == 200
        assert REGISTRY.get_sample_value("retrail_serve_requests_in_progress") == 0

    asyncio.run(go())
