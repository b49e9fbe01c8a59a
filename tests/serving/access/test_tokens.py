"""Tokens of a file: tenants, agents, rotation without a restart, quotas."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from schemas.errors import ConfigurationError
from schemas.settings import Settings
from serving.access.tokens import Principal, Quota, read_tokens
from serving.guards import guarded
from serving.http_api import create_app
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


def test_a_token_is_rotated_without_a_restart_and_keeps_its_trajectories(
    file: Path, tmp_path: Path
) -> None:
    world = World(serve_tokens_file=file, data_dir=tmp_path / "data")
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
    audited = (tmp_path / "data" / "audit.jsonl").read_text().splitlines()
    reloads = [json.loads(line) for line in audited]
    assert {line["action"] for line in reloads} == {"token reload"}
    counts = [(line["tokens"], line["added"], line["removed"]) for line in reloads]
    assert counts == [(3, 1, 0), (1, 0, 2)]


def test_a_token_may_do_what_its_rights_allow(file: Path) -> None:
    searcher, reporter, operator = "searcher", "reporter", "operator"
    file.write_text(
        entry(searcher, tenant="one")
        + entry(reporter, tenant="one", rights=["search", "outcome"])
        + entry(operator, tenant="one", rights=["operate"])
    )
    world = World(serve_tokens_file=file)
    allowed: dict[str, list[int]] = {}
    with TestClient(guarded(world.app, world.settings, host="0.0.0.0")) as http:
        for token in (searcher, reporter, operator):
            headers = bearer(token)
            answers = [
                search(http, headers),
                http.get("/v1/documents/gzip", headers=headers),
                http.post("/v1/trajectories/a/reason", json={"text": "r"}, headers=headers),
                http.post("/v1/trajectories/a/end", headers=headers),
                http.post("/v1/trajectories/a/end", json={"outcome": "correct"}, headers=headers),
                http.get("/metrics", headers=headers),
            ]
            allowed[token] = [answer.status_code for answer in answers]
            refused = [answer.json() for answer in answers if answer.status_code == 403]
            assert all("rights" in answer["detail"] for answer in refused)
            assert http.get("/healthz", headers=headers).status_code == 200
    assert allowed == {
        searcher: [200, 200, 200, 200, 403, 403],
        reporter: [200, 200, 200, 200, 200, 403],
        operator: [403, 403, 403, 403, 403, 200],
    }
    ends = [event for events in world.log.events.values() for event in events if event[0] == "end"]
    assert ends == [("end", "unknown"), ("end", "unknown"), ("end", "correct")]


def test_traces_need_the_right_to_operate(file: Path) -> None:
    file.write_text(
        entry(ONE, tenant="one", rights=["search", "outcome"])
        + entry(TWO, tenant="two", rights=["operate"])
    )
    traces = FakeTraces()
    world = World(serve_tokens_file=file)
    app = create_app(world._running, traces)  # type: ignore[arg-type]
    with TestClient(guarded(app, world.settings, host="0.0.0.0")) as http:
        sent = [
            http.post("/v1/traces", json={}, headers=bearer(token)).status_code
            for token in (ONE, TWO)
        ]
    assert sent == [403, 200]
    assert traces.accepted == 1


class FakeTraces:
    accepted = 0

    async def accept(self, body: bytes, media_type: str, encoding: str) -> int:
        self.accepted += 1
        return 0

    def close(self) -> None: ...


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
        (entry("", tenant="a"), "of an empty text"),
        (entry(ONE, tenant="a") + entry(ONE, tenant="b"), "same sha256"),
        (entry(ONE, tenant="a", rights="all"), "rights"),
        (entry(ONE, tenant="a", rights=["everything"]), "rights"),
        (entry(ONE, tenant="a", documents="mine"), "documents"),
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


def test_a_token_of_any_characters_is_that_token_alone() -> None:
    world = World(serve_token=SecretStr("геслоПароль"))
    with TestClient(guarded(world.app, world.settings, host="0.0.0.0")) as http:
        for token, status in (("геслоПароль", 200), ("?" * 11, 401), ("", 401)):
            given = {"Authorization": f"Bearer {token}".encode()}
            answer = http.post("/v1/search", json={"query": "gzip"}, headers=given)  # type: ignore[arg-type]
            assert answer.status_code == status


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
