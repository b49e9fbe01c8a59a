"""The client of `retrail serve`: what it sends, gets and raises."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from retrail import ConfigurationError, PublishError, ServeError
from retrail.http import Document, Hit, SearchClient
from schemas.errors import NoIndexError
from serving.handles import Handles
from tests.retrail.adapters.conftest import TOKEN
from tests.serving.fakes import SECRET, TEXTS, World

GZIP = Hit("gzip", 1, 0.4, "gzip", TEXTS["gzip"])


def test_the_calls_of_a_task_become_one_trajectory(world: World, client: SearchClient) -> None:
    trajectory = client.trajectory("task-17")
    assert trajectory.id is None
    trajectory.reason("I need gzip.")
    found = trajectory.search("open a gzip file", k=1)
    assert (found.hits, found.retriever_version) == ([GZIP], 1)
    assert trajectory.open("zip/file") == Document("zip/file", "zip/file", TEXTS["zip/file"])
    trajectory.reason("Another format.")
    trajectory.open("gzip")
    trajectory.reason(tokens=3, verdict="relevant")
    trajectory.end("correct", answer="gzip.open")
    assert trajectory.id is not None
    assert world.log.events == {
        trajectory.id: [
            ("reasoning", "I need gzip."),
            ("search", "open a gzip file", ["gzip"], 1),
            ("browse", "zip/file"),
            ("reasoning", "Another format."),
            ("browse", "gzip"),
            ("reasoning", None, 3, "relevant"),
            ("answer", "gzip.open"),
            ("end", "correct"),
        ]
    }
    agent = world.log.agents[trajectory.id]
    assert (agent.name, agent.model, agent.tenant) == ("me", "qwen3-30b", "t")


def test_awaited_calls_do_the_same_in_any_event_loop(world: World, client: SearchClient) -> None:
    async def work() -> None:
        trajectory = client.trajectory()
        found = await trajectory.asearch("open a gzip file", k=1, texts=True)
        assert found.hits[0].text == TEXTS["gzip"]
        await trajectory.aopen("gzip")
        await trajectory.areason("That is it.")
        await trajectory.aend(answer="gzip.open")
        await client.aclose()

    asyncio.run(work())
    [events] = world.log.events.values()
    kinds = [event[0] for event in events]
    assert kinds == ["search", "browse", "reasoning", "answer", "end"]

    async def search() -> int:
        async with SearchClient(str(client._http.base_url), token=TOKEN) as other:
            return len((await other.trajectory().asearch("gzip")).hits)

    assert [asyncio.run(search()), asyncio.run(search())] == [3, 3]


def test_calls_at_once_are_of_one_trajectory(world: World, client: SearchClient) -> None:
    trajectory = client.trajectory()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(trajectory.search, ["gzip", "archives", "notation", "files"]))
    assert [len(events) for events in world.log.events.values()] == [4]


def test_two_trajectories_are_two(world: World, client: SearchClient) -> None:
    for _ in range(2):
        client.trajectory().search("gzip")
    assert len(world.log.events) == 2


def test_a_failed_call_is_an_error_and_publishes_nothing(
    world: World, client: SearchClient
) -> None:
    trajectory = client.trajectory()
    world.retriever.failure = NoIndexError("none")
    with pytest.raises(ServeError, match="no index yet") as raised:
        trajectory.search("gzip")
    assert (raised.value.status, raised.value.retry_after) == (503, 5)
    assert raised.value.trajectory_id == trajectory.name
    assert isinstance(raised.value, PublishError)
    world.retriever.failure = None
    trajectory.search("gzip", k=1)
    [events] = world.log.events.values()
    assert [event[0] for event in events] == ["search"]


def test_an_unknown_document_is_an_error_after_its_reasoning(
    world: World, client: SearchClient
) -> None:
    trajectory = client.trajectory()
    trajectory.search("gzip", k=1)
    trajectory.reason("I guess.")
    with pytest.raises(ServeError, match="no document with this id") as raised:
        trajectory.open("absent")
    assert raised.value.status == 404
    trajectory.open("gzip")
    [events] = world.log.events.values()
    assert [event[0] for event in events] == ["search", "reasoning", "browse"]


def test_a_reasoning_of_any_length_is_taken(world: World, client: SearchClient) -> None:
    trajectory = client.trajectory()
    trajectory.reason("a" * 150_000 + "b" * 150_000)
    [[reasoning]] = world.log.events.values()
    assert len(reasoning[1]) == 200_000
    assert reasoning[1].endswith("b")


def test_a_trajectory_of_another_token_is_refused(client: SearchClient) -> None:
    of_another = Handles(SECRET).named("another token", "task-1")
    with pytest.raises(ServeError, match="not given to this caller") as raised:
        client.trajectory(of_another).end()
    assert raised.value.status == 400


def test_arguments_that_the_server_does_not_take_are_named(client: SearchClient) -> None:
    with pytest.raises(ServeError, match=r"k: Input should be .* 100") as raised:
        client.trajectory().search("gzip", k=1000)
    assert raised.value.status == 422


def test_the_token_is_an_argument_or_a_variable(
    client: SearchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(client._http.base_url)
    with SearchClient(url) as without, pytest.raises(ServeError, match="Bearer") as raised:
        without.trajectory().search("gzip")
    assert raised.value.status == 401
    monkeypatch.setenv("RETRAIL_SERVE_TOKEN", TOKEN)
    with SearchClient(url) as found:
        assert found.trajectory().search("gzip").hits


def test_a_server_that_does_not_listen_is_named(closed_port: str) -> None:
    url = f"http://{closed_port}"
    with SearchClient(url) as client, pytest.raises(ServeError, match=closed_port) as raised:
        client.trajectory().search("gzip")
    assert raised.value.status is None


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost", "http://a:b", "ftp://a"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a URL"):
        SearchClient(url)


class _Proxy(BaseHTTPRequestHandler):
    """Answers as no `retrail serve` does."""

    answer = (200, "text/html", b"<p>Log in")

    def do_POST(self) -> None:
        status, kind, content = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def proxy() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_an_answer_of_something_else_is_an_error(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SearchClient(proxy) as client:
        for status, kind, content, match in (
            (200, "text/html", b"<p>Log in", "answered: 200 OK"),
            (502, "text/html", b"<p>Bad", "answered: 502 Bad Gateway"),
            (200, "application/json", b"{", "answered: 200 OK"),
            (200, "application/json", b"[]", "answered: 200 OK"),
        ):
            monkeypatch.setattr(_Proxy, "answer", (status, kind, content))
            with pytest.raises(ServeError, match=match):
                client.trajectory().search("gzip")


def test_fields_of_a_newer_server_are_passed_over(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"doc_id": "a", "title": "", "text": "x", "trajectory_id": "t", "language": "en"}
    answer = (200, "application/json", json.dumps(document).encode())
    monkeypatch.setattr(_Proxy, "answer", answer)
    with SearchClient(proxy) as client:
        assert client.trajectory().open("a") == Document("a", "", "x")
