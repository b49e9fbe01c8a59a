"""Which trajectory a call of the HTTP API belongs to, and how long its answer waits for Kafka."""

import time
import uuid
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from starlette.testclient import TestClient

from serving.guards import guarded
from serving.problems import TRAJECTORY_HEADER
from tests.serving.fakes import World
from tests.waiting import eventually

TOKEN = "0123456789abcdef"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def http(world: World) -> Iterator[TestClient]:
    with TestClient(world.app, base_url="http://127.0.0.1") as http:
        yield http


def test_the_steps_of_a_task_become_one_trajectory(world: World, http: TestClient) -> None:
    me = {"Retrail-Agent": "me", "Retrail-Model": "qwen3-30b", "Retrail-Tenant": "t"}
    first = http.post("/v1/search", json={"query": "gzip", "k": 1}, headers=me)
    trajectory = first.headers[TRAJECTORY_HEADER]
    on = me | {TRAJECTORY_HEADER: trajectory}
    http.get("/v1/documents/gzip", headers=on)
    again = http.post(
        "/v1/open", json={"doc_id": "json#0", "reasoning": "Not what I need."}, headers=on
    )
    assert again.headers[TRAJECTORY_HEADER] == trajectory
    ended = http.post(
        f"/v1/trajectories/{trajectory}/end",
        json={"outcome": "correct", "answer": "gzip.open", "reasoning": "Neither is this."},
        headers=me,
    )
    assert ended.json() == {"trajectory_id": trajectory, "outcome": "correct"}
    assert world.log.events == {
        trajectory: [
            ("search", "gzip", ["gzip"], 1),
            ("browse", "gzip"),
            ("reasoning", "Not what I need."),
            ("browse", "json#0"),
            ("reasoning", "Neither is this."),
            ("answer", "gzip.open"),
            ("end", "correct"),
        ]
    }
    agent = world.log.agents[trajectory]
    assert (agent.name, agent.model, agent.tenant) == ("me", "qwen3-30b", "t")


def test_a_reasoning_without_a_call_is_published(world: World, http: TestClient) -> None:
    trajectory = found(http, {})
    url = f"/v1/trajectories/{trajectory}/reason"
    for body in (
        {"text": "It helped."},
        {"tokens": 7, "verdict": "irrelevant", "doc_id": "json#0"},
    ):
        answer = http.post(url, json=body)
        assert answer.json() == {"trajectory_id": trajectory}
        assert answer.headers[TRAJECTORY_HEADER] == trajectory
    assert world.log.events[trajectory][1:] == [
        ("reasoning", "It helped."),
        ("reasoning", None, 7, "irrelevant", "json#0"),
    ]
    assert http.post(url, json={"verdict": "unknown"}).status_code == 422


def found(http: TestClient, headers: dict[str, str]) -> str:
    """The trajectory of a search."""
    answer = http.post("/v1/search", json={"query": "gzip"}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers[TRAJECTORY_HEADER]


def test_a_name_of_the_clients_own_is_a_trajectory_on_every_replica(
    world: World, http: TestClient
) -> None:
    name = str(uuid.uuid4())
    with TestClient(World().app, base_url="http://127.0.0.1") as other:
        ids = {found(replica, {TRAJECTORY_HEADER: name}) for replica in (http, other, http)}
        [trajectory] = ids
        assert found(other, {TRAJECTORY_HEADER: trajectory}) == trajectory
        ended = other.post(f"/v1/trajectories/{name}/end")
        assert ended.json() == {"trajectory_id": trajectory, "outcome": "unknown"}
    assert [event[0] for event in world.log.events[trajectory]] == ["search", "search"]


def test_case_task_1_is_refused_without_tokens_and_one_trajectory_of_each_token() -> None:
    name = {TRAJECTORY_HEADER: "task-1"}
    tokens = World(serve_token=SecretStr(f"{TOKEN}, another-token"))
    guards = [guarded(world.app, world.settings, host="127.0.0.1") for world in (World(), tokens)]
    with TestClient(guards[0], base_url="http://127.0.0.1") as http:
        refused = http.post("/v1/search", json={"query": "gzip"}, headers=name)
        assert refused.status_code == 400
        assert refused.headers["content-type"] == "application/problem+json"
        assert "UUID" in refused.json()["detail"]
        assert http.post("/v1/trajectories/task-1/end").status_code == 400
    with TestClient(guards[1]) as http:
        one, two = ({"Authorization": f"Bearer {t}"} for t in (TOKEN, "another-token"))
        mine, other = found(http, name | one), found(http, name | two)
        assert mine != other
        assert found(http, name | one) == mine
        seen = http.post(
            "/v1/search", json={"query": "gzip"}, headers=two | {TRAJECTORY_HEADER: mine}
        )
        assert seen.status_code == 400
        for operation, body in (("end", {}), ("reason", {"text": "It helped."})):
            url = f"/v1/trajectories/{mine}/{operation}"
            assert http.post(url, json=body, headers=two).status_code == 400
    assert {len(events) for events in tokens.log.events.values()} == {1, 2}


def test_the_trace_of_a_call_is_its_trajectory_if_the_setting_is_on() -> None:
    trace = {"traceparent": f"00-{4 * '0af76519'}-b7ad6b7169203331-01"}
    for on, count in ((True, 1), (False, 2)):
        world = World(serve_traceparent=on)
        with TestClient(world.app, base_url="http://127.0.0.1") as http:
            assert len({found(http, trace) for _ in range(2)}) == count
            named = {TRAJECTORY_HEADER: uuid.uuid4().hex}
            assert found(http, trace | named) == found(http, named)


def test_case_25_searches_without_a_handle_end_no_trajectory(
    world: World, http: TestClient
) -> None:
    assert len({found(http, {}) for _ in range(25)}) == 25
    assert [len(events) for events in world.log.events.values()] == [1] * 25


@pytest.mark.parametrize("acknowledges", [None, False])
def test_an_answer_waits_for_kafka_no_longer_than_the_setting(acknowledges: bool | None) -> None:
    def unacknowledged() -> float:
        return REGISTRY.get_sample_value("retrail_serve_unacknowledged_calls_total") or 0

    world = World(serve_ack_seconds=0.2)
    with TestClient(world.app, base_url="http://127.0.0.1") as http:
        eventually(lambda: http.get("/readyz").is_success)
        before = unacknowledged()
        found(http, {})
        assert unacknowledged() == before
        world.log.acknowledges = acknowledges
        began = time.monotonic()
        trajectory = found(http, {})
        took = time.monotonic() - began
        assert acknowledges is not None or took >= 0.2
        http.post("/v1/open", json={"doc_id": "gzip"}, headers={TRAJECTORY_HEADER: trajectory})
        http.post(f"/v1/trajectories/{trajectory}/end")
        assert unacknowledged() == before + 3


def test_the_end_of_the_server_ends_no_trajectory_and_closes_the_retriever(world: World) -> None:
    with TestClient(world.app, base_url="http://127.0.0.1") as http:
        found(http, {})
    [[event]] = world.log.events.values()
    assert event[0] == "search"
    assert world.retriever.closed
