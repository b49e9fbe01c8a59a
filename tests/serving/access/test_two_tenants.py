"""Two tenants on one server: what one tries against the other, over HTTP and over MCP."""

import asyncio
import hashlib
import json
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from schemas.erasures import Erasures, SubjectKind
from schemas.settings import Settings
from serving.guards import guarded
from serving.http_api import create_app
from serving.mcp.server import create_http_app
from serving.problems import TRAJECTORY_HEADER
from serving.retriever import Retriever
from tests.schemas.test_erasures import KEY, erasure
from tests.serving.live import listening
from tests.serving.mcp_world import World
from tests.serving.numbers import numbers, put

SLOTS = 8
TENANTS = ("one", "two")
ACCEPT = {"Accept": "application/json, text/event-stream"}


class RefusedError(Exception):
    """A call was refused, with this text."""


class Caller:
    """A client with the token of a tenant; it claims to be the other one in a header."""

    session = ""

    def __init__(self, tenant: str, url: str) -> None:
        self.tenant = tenant
        (other,) = {*TENANTS} - {tenant}
        headers = {"Authorization": f"Bearer {tenant}", "Retrail-Tenant": other} | ACCEPT
        self.http = httpx.AsyncClient(base_url=url, headers=headers, timeout=30)

    async def begin(self) -> None:
        """Called before any other call."""

    @abstractmethod
    async def search(self, trajectory: str = "") -> str:
        """Search; returns the trajectory."""

    @abstractmethod
    async def found(self, query: str) -> set[str]:
        """The ids of the hits."""

    @abstractmethod
    async def open(self, doc_id: str, trajectory: str = "") -> None:
        """Open a document."""

    @abstractmethod
    async def reason(self, trajectory: str) -> None:
        """Add a reasoning."""

    @abstractmethod
    async def end(self, trajectory: str, session: str) -> None:
        """End a trajectory, over MCP the session that it belongs to."""

    @abstractmethod
    async def erase(self, trajectory: str) -> None:
        """Nothing offers that."""


class OverHttp(Caller):
    async def search(self, trajectory: str = "") -> str:
        found = await self._sent("POST", "/v1/search", trajectory, {"query": "gzip"})
        return str(found["trajectory_id"])

    async def found(self, query: str) -> set[str]:
        hits = await self._sent("POST", "/v1/search", "", {"query": query})
        return {hit["doc_id"] for hit in hits["hits"]}

    async def open(self, doc_id: str, trajectory: str = "") -> None:
        await self._sent("POST", "/v1/open", trajectory, {"doc_id": doc_id})

    async def reason(self, trajectory: str) -> None:
        await self._sent("POST", f"/v1/trajectories/{trajectory}/reason", "", {"text": "Bad."})

    async def end(self, trajectory: str, session: str) -> None:
        await self._sent("POST", f"/v1/trajectories/{trajectory}/end", "", {})

    async def erase(self, trajectory: str) -> None:
        await self._sent("DELETE", f"/v1/trajectories/{trajectory}", "", None)

    async def _sent(self, method: str, path: str, trajectory: str, body: object) -> Any:
        headers = {TRAJECTORY_HEADER: trajectory} if trajectory else {}
        answer = await self.http.request(method, path, json=body, headers=headers)
        if answer.status_code >= 400:
            raise RefusedError(answer.text)
        return answer.json()


class OverMcp(Caller):
    """In a session, as of the protocol of 2025."""

    async def begin(self) -> None:
        client = {"name": "client", "version": "1"}
        opened = await self._sent(
            "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=client
        )
        self.session = opened.headers["mcp-session-id"]
        self.http.headers["Mcp-Session-Id"] = self.session

    async def search(self, trajectory: str = "") -> str:
        return str((await self._called("search", trajectory, query="gzip"))["trajectory_id"])

    async def found(self, query: str) -> set[str]:
        hits = (await self._called("search", "", query=query))["hits"]
        return {hit["doc_id"].rpartition("~")[0] for hit in hits}

    async def open(self, doc_id: str, trajectory: str = "") -> None:
        await self._called("open_document", trajectory, doc_id=doc_id)

    async def reason(self, trajectory: str) -> None:
        await self._called("reason", trajectory, reasoning="Bad.")

    async def end(self, trajectory: str, session: str) -> None:
        await self.http.delete("/mcp", headers={"Mcp-Session-Id": session})

    async def erase(self, trajectory: str) -> None:
        await self._called("erase", trajectory)

    async def _sent(self, method: str, **params: object) -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await self.http.post("/mcp", json=body)
        assert answer.status_code == 200, answer.text
        return answer

    async def _called(self, tool: str, trajectory: str, **arguments: object) -> Any:
        given = {"trajectory_id": trajectory} if trajectory else {}
        answer = await self._sent("tools/call", name=tool, arguments=arguments | given)
        text = answer.text.partition("data:")[2] or answer.text
        found = json.loads(text)
        if "error" in found or found["result"].get("isError"):
            raise RefusedError(text)
        return found["result"]["structuredContent"]


# -- The attempts ----------------------------------------------------------------------------------


async def see(one: Caller, two: Caller, world: World) -> None:
    """By its id, by the id of a document that carries it, by the same name."""
    theirs = await one.search(f"task-of-{one.tenant}")
    with pytest.raises(RefusedError, match="not given to this caller"):
        await two.open("gzip", theirs)
    with pytest.raises(RefusedError, match="holds no document"):
        await two.open(f"gzip~{theirs}")
    assert await two.search(f"task-of-{one.tenant}") != theirs
    assert steps(world, theirs) == ["search"]


async def join(one: Caller, two: Caller, world: World) -> None:
    """With a search and a reasoning, which would spoil what is learned from it."""
    theirs = await one.search()
    for attempt in (two.search, two.reason):
        with pytest.raises(RefusedError, match="not given to this caller"):
            await attempt(theirs)
    assert steps(world, theirs) == ["search"]


async def end(one: Caller, two: Caller, world: World) -> None:
    theirs = await one.search()
    with suppress(RefusedError):
        await two.end(theirs, one.session)
    assert steps(world, theirs) == ["search"]
    await one.end(theirs, one.session)
    assert len(steps(world, theirs)) == 2, "its own tenant can"


async def flood(one: Caller, two: Caller, world: World) -> None:
    """With calls that last, more than the server answers at once."""
    goes_on = threading.Event()
    real = world.retriever.open

    def slow(doc_id: str, tenant: str | None = None) -> Any:
        assert goes_on.wait(30)
        return real(doc_id, tenant)

    world.retriever.open = slow  # type: ignore[method-assign]
    calls = [asyncio.create_task(two.open("gzip")) for _ in range(3 * SLOTS)]
    try:
        async with asyncio.timeout(20):
            # All but those that hold a slot are refused.
            for ended in islice(asyncio.as_completed(calls), 2 * SLOTS):
                with pytest.raises(RefusedError, match="server is busy"):
                    await ended
            for _ in range(3):
                await one.search()
    finally:
        goes_on.set()
        world.retriever.open = real  # type: ignore[method-assign]
    await asyncio.gather(*calls, return_exceptions=True)


async def erase(one: Caller, two: Caller, world: World) -> None:
    """No call erases; and what an operator erases of a tenant is nothing of the other."""
    theirs, own = await one.search("task-1"), await two.search("task-1")
    with pytest.raises(RefusedError):
        await two.erase(theirs)
    subjects: tuple[tuple[SubjectKind, str], ...] = (
        ("tenant", two.tenant),
        ("agent", f"bot-of-{two.tenant}"),
        ("trajectory", own),
    )
    for kind, identifier in subjects:
        known = Erasures(KEY, [erasure(kind, identifier, events=9)])
        for name, expected in ((own, True), (theirs, False)):
            who = world.log.agents[name]
            found = known.covering(
                [("events", 0, 1)], trajectory=name, agent=who.name, tenant=who.tenant
            )
            assert bool(found) is expected


def steps(world: World, trajectory: str) -> list[str]:
    return [event[0] for event in world.log.events[trajectory]]


Attempt = Callable[[Caller, Caller, World], Awaitable[None]]
ATTEMPTS: tuple[Attempt, ...] = (see, join, end, flood, erase)


@pytest.fixture
def world(tmp_path: Path) -> World:
    file = tmp_path / "tokens.toml"
    file.write_text(
        "\n".join(
            f'[[token]]\nsha256 = "{hashlib.sha256(tenant.encode()).hexdigest()}"\n'
            f'tenant = "{tenant}"\nagent = "bot-of-{tenant}"'
            for tenant in TENANTS
        )
    )
    return World(serve_tokens_file=file, serve_concurrency=SLOTS, data_dir=tmp_path)


Protocol = Literal["HTTP", "MCP"]


def run(
    protocol: Protocol, world: World, test: Callable[[Sequence[Caller]], Awaitable[None]]
) -> None:
    """Run a test with a client of each tenant."""
    app: Any = (
        create_app(world.running)
        if protocol == "HTTP"
        else create_http_app(world.running, host="127.0.0.1")
    )
    client = OverHttp if protocol == "HTTP" else OverMcp

    async def go(url: str) -> None:
        one, two = (client(tenant, url) for tenant in TENANTS)
        async with one.http, two.http:
            for caller in (one, two):
                await caller.begin()
            await test((one, two))

    with listening(guarded(app, world.settings, host="127.0.0.1")) as url:
        asyncio.run(go(url))


@pytest.mark.parametrize("protocol", ["HTTP", "MCP"])
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
def test_neither_tenant_reaches_the_other(
    attempt: Attempt, protocol: Protocol, world: World
) -> None:
    async def test(callers: Sequence[Caller]) -> None:
        one, two = callers
        await attempt(one, two, world)
        await attempt(two, one, world)

    run(protocol, world, test)
    agents = {(agent.tenant, agent.name) for agent in world.log.agents.values()}
    assert agents == {("one", "bot-of-one"), ("two", "bot-of-two")}


DOCUMENTS = {"of one": "one", "of two": "two", "of all": ""}


@pytest.mark.parametrize("protocol", ["HTTP", "MCP"])
def test_a_limited_token_neither_finds_nor_opens_the_others_documents(
    protocol: Protocol, world: World, here: Settings
) -> None:
    """On a real Milvus; the other tenant's document is one that does not exist."""
    put(here, 1, [*DOCUMENTS], owners=DOCUMENTS)
    world.retriever = Retriever(here, load=numbers)  # type: ignore[assignment]
    file = world.settings.serve_tokens_file
    assert file is not None
    file.write_text(file.read_text().replace("agent =", 'documents = "tenant"\nagent ='))

    async def test(callers: Sequence[Caller]) -> None:
        for caller in callers:
            seen = {name for name, owner in DOCUMENTS.items() if owner in ("", caller.tenant)}
            (hidden,) = DOCUMENTS.keys() - seen
            assert await caller.found(hidden) == seen
            for doc_id in seen:
                await caller.open(doc_id)
            errors = set()
            for doc_id in (hidden, "absent"):
                with pytest.raises(RefusedError, match="holds no document") as error:
                    await caller.open(doc_id)
                errors.add(str(error.value))
            assert len(errors) == 1, "it looks as if it did not exist"

    run(protocol, world, test)
    every = [event for events in world.log.events.values() for event in events]
    shown = [event[2] for event in every if event[0] == "search"]
    assert sorted(map(sorted, shown)) == [["of all", "of one"], ["of all", "of two"]]


@pytest.mark.parametrize("protocol", ["HTTP", "MCP"])
def test_a_limited_token_learns_that_the_index_is_too_old(protocol: Protocol, world: World) -> None:
    world.retriever.has_tenants = False
    file = world.settings.serve_tokens_file
    assert file is not None
    limited = file.read_text().replace("agent =", 'documents = "tenant"\nagent =', 1)
    file.write_text(limited)

    async def test(callers: Sequence[Caller]) -> None:
        one, two = callers
        with pytest.raises(RefusedError, match="retrail index rebuild"):
            await one.search()
        with pytest.raises(RefusedError, match="retrail index rebuild"):
            await one.open("gzip")
        assert "gzip" in await two.found("gzip"), "its token is not limited"

    run(protocol, world, test)
