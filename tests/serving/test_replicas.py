"""Replicas of `retrail serve` remember nothing, so they give the trajectories that one would."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from deploy import topics as topics_module
from deploy.kafka import KafkaBroker
from retrail_runtime import kafka as kafka_client
from schemas.settings import Settings
from schemas.topics import Topics
from serving import running as running_module
from serving.http_api import create_app
from serving.problems import TRAJECTORY_HEADER
from tests.serving.fakes import FakeRetriever
from tests.serving.processes import events, live_index, running, url_of
from tests.streams.fleet import Fleet
from tests.streams.topics import assert_same_pairs
from tests.streams.trajectories import mined_offline
from tests.waiting import eventually

TEXTS = {"gzip": "Open a gzip file.", "zip": "Read archives.", "json#0": "Decode notation."}
SECRET = "a secret that all replicas share"
TASKS = 12


@pytest.fixture
def indexed(settings: Settings, topics: Topics, tmp_path: Path) -> Iterator[Settings]:
    """An installation whose live index holds TEXTS, by a tiny model."""
    with live_index(settings, TEXTS, tmp_path):
        yield settings


class RoundRobin:
    """Sends each call to the next replica, and again to another one if that was killed."""

    def __init__(self, *urls: str) -> None:
        self.urls = list(urls)
        self._turn, self._lock = count(), threading.Lock()
        self._http = httpx.Client(timeout=60)

    def post(self, path: str, trajectory: str | None = None, **body: object) -> Any:
        headers = {} if trajectory is None else {TRAJECTORY_HEADER: trajectory}
        with self._lock:
            url = self.urls[next(self._turn) % len(self.urls)]
        answer = self._http.post(f"{url}/v1/{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


def test_trajectories_over_replicas_are_whole_and_give_their_pairs(
    indexed: Settings, tmp_path: Path
) -> None:
    """Each call of a task goes to another replica than the one before; one is replaced."""
    fleet = Fleet(indexed, tmp_path)
    shared = {"RETRAIL_SERVE_SECRET": SECRET}
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        stack.callback(fleet.kill_all)
        replicas = [
            stack.enter_context(running(indexed, "serve", "--port", "0", **shared))
            for _ in range(2)
        ]
        balancer = RoundRobin(*map(url_of, replicas))
        for url in balancer.urls:
            eventually(lambda url=url: httpx.get(f"{url}/readyz").is_success, 180, interval=0.5)

        def begin(_: int) -> tuple[str, list[str]]:
            found = balancer.post("search", query="open a gzip file", k=3)
            ids = [hit["doc_id"] for hit in found["hits"]]
            balancer.post("open", found["trajectory_id"], doc_id=ids[0])
            return found["trajectory_id"], ids

        def finish(begun: tuple[str, list[str]]) -> None:
            trajectory, ids = begun
            no = "This is about another topic and does not help at all."
            yes = "Great, the document answers the question directly."
            balancer.post("open", trajectory, doc_id=ids[1], reasoning=no)
            balancer.post(
                f"trajectories/{trajectory}/end", trajectory, outcome="correct", reasoning=yes
            )

        begun = list(pool.map(begin, range(TASKS)))
        replicas[0].kill()
        replacement = stack.enter_context(running(indexed, "serve", "--port", "0", **shared))
        balancer.urls[0] = url_of(replacement)
        eventually(lambda: httpx.get(f"{balancer.urls[0]}/readyz").is_success, 180, interval=0.5)
        list(pool.map(finish, begun))

        # Every call was acknowledged, so its events are there without waiting.
        published = events(indexed)
        kinds = ["search", "browse", "reasoning", "browse", "reasoning", "end"]
        assert Counter(event.trajectory_id for event in published) == {
            trajectory: len(kinds) for trajectory, _ in begun
        }
        for trajectory, _ in begun:
            assert [e.type for e in published if e.trajectory_id == trajectory] == kinds
        assert all(event.seq is None for event in published)
        expected = mined_offline(published, indexed)
        ids = dict(begun)
        relevant = [pair for pair in expected.values() if pair.verdict == "relevant"]
        assert len(relevant) == TASKS
        for pair in relevant:
            first, second, third = ids[pair.trajectory_id]
            assert (pair.positive, pair.negatives) == (second, (first, third))
            assert (pair.outcome, pair.closed_by) == ("correct", "end")
        for role in ("judge", "mine"):
            fleet.start(role)
        fleet.until_pairs(expected)
        assert assert_same_pairs(indexed, expected) == 0


@pytest.mark.integration
def test_searches_are_answered_while_kafka_is_stopped(
    own_broker: KafkaBroker, tmp_path: Path
) -> None:
    """They wait no longer than the setting; once Kafka is back, it has each event once."""
    settings = Settings(
        kafka_bootstrap=own_broker.client_address,
        topic_prefix="stopped_",
        data_dir=tmp_path / "data",
        serve_ack_seconds=0.5,
    )
    topics_module.ensure(settings)
    publisher = running_module.publisher(settings)

    @asynccontextmanager
    async def service() -> Any:
        async with running_module.serving(settings, FakeRetriever(), publisher, b"key") as found:  # type: ignore[arg-type]
            yield found

    def unacknowledged() -> float:
        return REGISTRY.get_sample_value("retrail_serve_unacknowledged_calls_total") or 0

    searches = 0

    def searched() -> float:
        nonlocal searches
        searches += 1
        began = time.monotonic()
        answer = http.post("/v1/search", json={"query": "gzip"})
        assert answer.status_code == 200
        return time.monotonic() - began

    def acknowledged() -> None:
        """A new broker acknowledges only after it has loaded its coordinators."""

        def once() -> bool:
            before = unacknowledged()
            searched()
            return unacknowledged() == before

        eventually(once, what="acknowledgement")

    assert own_broker.child is not None
    with TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        eventually(lambda: http.get("/readyz").is_success)
        acknowledged()
        before = unacknowledged()
        os.kill(own_broker.child.pid, signal.SIGSTOP)
        assert all(0.5 <= searched() < 5 for _ in range(3))
        assert unacknowledged() == before + 3
        os.kill(own_broker.child.pid, signal.SIGCONT)
        eventually(lambda: publisher.stats.waiting == 0, 60, what="delivery")
    topic = Topics.of(settings).trajectory_events
    found = [record.value for record in kafka_client.read_to_end(settings, topic)]
    assert len(found) == len(set(found)) == searches
