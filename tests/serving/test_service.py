"""How many calls are answered at once, in all and of each caller."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from serving.problems import RefusedError
from serving.service import Slots
from tests.serving.fakes import World
from tests.waiting import eventually


def hold(slots: Slots, caller: str, stack: ExitStack, count: int = 1) -> int:
    """Take slots that are held until the stack ends; returns how many there were."""
    for taken in range(count):
        try:
            stack.enter_context(slots.taken(caller))
        except RefusedError:
            return taken
    return count


def test_a_caller_leaves_an_eighth_to_others_and_shares_the_rest() -> None:
    slots = Slots(64)
    with ExitStack() as others, ExitStack() as first:
        assert hold(slots, "a", first, 100) == 56
        for name in "bcdefghi":
            assert hold(slots, name, others) == 1
        assert hold(slots, "j", others) == 0
        first.close()
        # Eight callers: at most 64 / 8 each.
        assert hold(slots, "b", others, 100) == 7


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 20))
def test_slots_come_back_and_are_never_more(calls: list[str], most: int) -> None:
    slots = Slots(most)
    with ExitStack() as stack:
        taken = sum(hold(slots, caller, stack) for caller in calls)
        assert taken <= most
        assert taken or not calls
    with slots.taken("d"):
        pass
    assert not slots._taken


@pytest.fixture
def world() -> Iterator[World]:
    world = World(serve_concurrency=8)
    yield world
    world.retriever.goes_on.set()


def test_case_flood_one_caller_does_not_block_another(world: World) -> None:
    with (
        TestClient(world.app, base_url="http://127.0.0.1") as http,
        ThreadPoolExecutor(10) as pool,
    ):
        eventually(lambda: http.get("/readyz").is_success)
        world.retriever.goes_on.clear()

        def search(agent: str) -> int:
            headers = {"Retrail-Agent": agent}
            return http.post("/v1/search", json={"query": "gzip"}, headers=headers).status_code

        def in_progress() -> float | None:
            return REGISTRY.get_sample_value("retrail_serve_requests_in_progress")

        flood = [pool.submit(search, "flood") for _ in range(7)]
        eventually(lambda: in_progress() == 7)
        refused = http.post(
            "/v1/search", json={"query": "gzip"}, headers={"Retrail-Agent": "flood"}
        )
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json"
        assert http.get("/readyz").is_success
        other = pool.submit(search, "other")
        eventually(lambda: in_progress() == 8)
        assert http.post("/v1/open", json={"doc_id": "gzip"}).status_code == 503
        world.retriever.goes_on.set()
        assert [call.result() for call in [*flood, other]] == [200] * 8
        assert in_progress() == 0
