"""Tokens of a file: tenants, agents, rotation without a restart, quotas."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from schemas.errors import ConfigurationError
from schemas.settings import Settings
from serving.access.tokens import Principal, Quota, read_tokens
from serving.guards import guarded
from serving.problems import TRAJECTORY_HEADER
from tests.serving import mcp_world
from tests.serving.fakes import World
from tests.serving.mcp_world import MODERN, call, over_http, refusal, served

ONE, TWO, NEW = "token-of-one", "token-of-two", "new-token-of-one"


def entry(token: str, **fields: object) -> str:
    lines = [f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"']
    lines += [f"{name} = {value!r}" for name, value in fields.items()]
    return "\n".join(("[[token]]", *lines, ""))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(entry(ONE, tenant="one", agent="bot") + entry(TWO, tenant="two"))
    return path


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | more


def search(http: TestClient, headers: dict[str, str]) -> Any:
    return http.post("/v1/search", json={"query": "gzip"}, headers=headers)


def test_tenant_and_agent_are_the_tokens_whatever_a_header_says(file: Path) -> None:
    world = World(serve_tokens_file=file)
    names = {"Retrail-Tenant": "another", "Retrail-Agent": "me", "Retrail-Model": "m"}
    with TestClient(guarded(world.app, world.settings, host="0.0.0.0")) as http:
        first = search(http, bearer(ONE, **names)).headers[TRAJECTORY_HEADER]
        second = search(http, bearer(TWO, **names)).headers[TRAJECTORY_HEADER]
        assert search(http, bearer("absent")).status_code == 401
        assert search(http, {}).status_code == 401
        # Neither joins nor ends what is the other's.
        joined = bearer(TWO) | {TRAJECTORY_HEADER: first}
        assert search(http, joined).status_code == 400
        assert http.post(f"/v1/trajectories/{first}/end", headers=bearer(TWO)).status_code == 400
    agents = {one: (a.tenant, a.name, a.model) for one, a in world.log.agents.items()}
    assert agents == {first: ("one", "bot", "m"), second: ("two", "me", "m")}


def test_over_mcp_tenants_are_apart_too(file: Path) -> None:
    world = mcp_world.World(serve_tokens_file=file)

    async def test(url: str) -> None:
        async with over_http(url, MODERN, bearer(ONE, **{"Retrail-Tenant": "two"})) as client:
            found = await call(client, "search", query="gzip", k=1)
        async with over_http(url, MODERN, bearer(TWO)) as client:
            handle = found["trajectory_id"]
            assert "not given to this caller" in await refusal(
                client, "search", query="zip", trajectory_id=handle
            )

    served(world, test)
    [agent] = world.log.agents.values()
    assert (agent.tenant, agent.name) == ("one", "bot")


def test_a_token_is_rotated_without_a_restart_and_keeps_its_trajectories(file: Path) -> None:
    world = World(serve_tokens_file=file)
    with TestClient(guarded(world.app, world.settings, host="0.0.0.0")) as http:
        name = {TRAJECTORY_HEADER: "task-1"}
        before = search(http, bearer(ONE) | name).headers[TRAJECTORY_HEADER]
        assert search(http, bearer(NEW)).status_code == 401
        both = file.read_text() + entry(NEW, tenant="one", agent="bot")
        replace(file, both)
        assert search(http, bearer(ONE) | name).headers[TRAJECTORY_HEADER] == before
        assert search(http, bearer(NEW) | name).headers[TRAJECTORY_HEADER] == before
        replace(file, entry(NEW, tenant="one", agent="bot"))
        assert search(http, bearer(ONE)).status_code == 401
        replace(file, "no TOML")
        with structlog.testing.capture_logs() as lines:
            assert search(http, bearer(NEW)).status_code == 200
        assert "earlier tokens count" in lines[0]["event"]


def replace(file: Path, text: str) -> None:
    """As an editor or a mounted secret does it: another file under the name."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.rename(file)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no TOML", "tokens.toml"),
        ("[[token]]\nsha256 = 'short'\ntenant = 'a'\n", "sha256"),
        (entry(ONE), "tenant"),
        (entry(ONE, tenant="a", rights="all"), "rights"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=reason):
        read_tokens(path)
    with pytest.raises(ConfigurationError, match="RETRAIL_SERVE_TOKENS_FILE"):
        guarded(World().app, Settings(serve_tokens_file=tmp_path / "absent"), host="0.0.0.0")


def test_a_tenant_above_its_quota_gets_429_and_the_others_do_not(file: Path) -> None:
    text = entry(ONE, tenant="one", requests_per_minute=12) + entry(TWO, tenant="two")
    file.write_text(text + entry(NEW, tenant="one", requests_per_minute=12))
    world = World(serve_tokens_file=file)
    with TestClient(guarded(world.app, world.settings, host="0.0.0.0")) as http:
        # Two tokens of a tenant share its quota; a sixth of it may come at once.
        found = [search(http, bearer(token)) for token in (ONE, NEW, ONE)]
        assert [answer.status_code for answer in found] == [200, 200, 429]
        assert 1 <= int(found[2].headers["retry-after"]) <= 5
        assert found[2].headers["content-type"] == "application/problem+json"
        assert search(http, bearer(TWO)).status_code == 200


@given(st.lists(st.floats(0, 30), max_size=200), st.integers(1, 100))
def test_no_minute_has_more_than_the_quota_and_a_sixth(pauses: list[float], most: int) -> None:
    now = 0.0
    taken: list[float] = []

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        taken.append(now)

    async def nothing(*_: object) -> Any:
        return None

    quota = Quota(app, now=lambda: now)
    scope = {"type": "http", "user": Principal("p", "tenant", None, most)}
    for pause in pauses:
        now += pause
        asyncio.run(quota(scope, nothing, nothing))
    for start in taken:
        within = sum(start <= at < start + 60 for at in taken)
        assert within <= most + max(1, most / 6)
