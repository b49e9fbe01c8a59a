"""`retrail serve` and `retrail mcp` as processes, over a real index, with events on real Kafka."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters

from deploy import topics as topics_module
from deploy.kafka import KafkaBroker
from schemas.events import Browse, Reasoning, Search
from schemas.settings import Settings
from schemas.topics import Topics
from tests.serving.processes import environment, events, live_index, running, url_of
from tests.streams.trajectories import mined_offline
from tests.waiting import eventually

TEXTS = {"gzip": "Open a gzip file.", "zip": "Read archives.", "json#0": "Decode notation."}
TOKEN = "0123456789abcdef"


@pytest.fixture
def indexed(settings: Settings, topics: Topics, tmp_path: Path) -> Iterator[Settings]:
    """An installation whose live index holds TEXTS, by a tiny model."""
    with live_index(settings, TEXTS, tmp_path):
        yield settings


def test_an_agent_behind_the_api_is_on_kafka(indexed: Settings) -> None:
    with running(indexed, "serve", "--port", "0", RETRAIL_SERVE_TOKEN=TOKEN) as process:
        url = url_of(process)
        headers = {"Authorization": f"Bearer {TOKEN}", "Retrail-Agent": "me"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            eventually(lambda: http.get("/readyz").status_code == 200, 180, interval=0.5)
            found = http.post("/v1/search", json={"query": "open gzip", "k": 3})
            assert found.status_code == 200, found.text
            hits = found.json()["hits"]
            assert {hit["doc_id"] for hit in hits} == set(TEXTS)
            trajectory = found.headers["Retrail-Trajectory"]
            http.headers["Retrail-Trajectory"] = trajectory
            opened = http.get("/v1/documents/json%230")
            assert opened.json()["text"] == TEXTS["json#0"]
            assert http.post("/v1/open", json={"doc_id": "gzip", "reasoning": "No."}).is_success
            through = search_by_command(indexed, RETRAIL_SERVE_TOKEN=TOKEN)
            assert [hit["doc_id"] for hit in through["hits"]] == [hit["doc_id"] for hit in hits]
            assert not through["loaded"], "the server answers"
            page = http.get("/metrics").text
            assert "retrail_serve_published_events_total" in page
            assert "retrail_search_queries_total" in page
            assert httpx.get(f"{url}/metrics").status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not list((indexed.data_dir / "run").glob("serve-*"))
    alone = search_by_command(indexed)
    assert [hit["doc_id"] for hit in alone["hits"]] == [hit["doc_id"] for hit in hits]
    assert set(alone["loaded"]) == {"torch", "pymilvus"}
    published = events(indexed)
    assert [event.trajectory_id for event in published] == [trajectory] * 4
    assert {event.seq for event in published} == {None}
    search, first, reasoning, second = published
    assert isinstance(search, Search)
    assert [hit.doc_id for hit in search.hits] == [hit["doc_id"] for hit in hits]
    assert (search.query, search.retriever_version) == ("open gzip", 1)
    assert search.agent.name == "me"
    assert isinstance(first, Browse)
    assert isinstance(reasoning, Reasoning)
    assert (first.doc_id, reasoning.about_previous, reasoning.text) == ("json#0", True, "No.")
    assert isinstance(second, Browse)
    assert second.doc_id == "gzip"


def search_by_command(settings: Settings, **extra: str) -> Any:
    """What `retrail search --json` prints, and which heavy libraries it loaded."""
    script = (
        "import sys; from retrail_cli import main; main(['search', 'open gzip', '-k', '3', "
        "'--json']); print(*{'torch', 'pymilvus'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(settings, **extra),
        capture_output=True,
        text=True,
        check=True,
    )
    answer, loaded = done.stdout.splitlines()
    return json.loads(answer) | {"loaded": loaded.split()}


def test_an_agent_of_a_stdio_client_is_on_kafka(indexed: Settings) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "retrail_cli", "mcp"],
        env=environment(indexed, RETRAIL_LOG_LEVEL="DEBUG"),
    )

    async def work() -> str:
        async with Client(server, read_timeout_seconds=120) as client:
            found = await client.call_tool("search", {"query": "open gzip", "k": 1})
            assert not found.is_error, found.content
            assert found.structured_content is not None
            doc_id = found.structured_content["hits"][0]["doc_id"]
            opened = await client.call_tool("open_document", {"doc_id": doc_id})
            assert opened.structured_content is not None
            assert opened.structured_content["text"] == TEXTS[doc_id]
            await client.call_tool("search", {"query": "x", "reasoning": HELPED})
            return str(found.structured_content["trajectory_id"])

    trajectory = asyncio.run(work())
    published = events(indexed)
    assert {event.trajectory_id for event in published} == {trajectory}
    types = [event.type for event in published]
    assert types == ["search", "browse", "reasoning", "search", "other"], "and the session's end"
    assert_one_pair(indexed, published[1].doc_id)


HELPED = "Great, the document answers the question directly."


def assert_one_pair(settings: Settings, positive: str) -> None:
    """What is published gives the pair of a task in which one document helped."""
    [pair] = mined_offline(events(settings), settings).values()
    assert (pair.query, pair.positive, pair.verdict) == ("open gzip", positive, "relevant")


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "bare", "version": "1"},
    },
}
SEARCH = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "search", "arguments": {"query": "gzip"}},
}


def test_standard_output_is_the_protocols_and_a_signal_loses_no_event(indexed: Settings) -> None:
    with running(indexed, "mcp", RETRAIL_LOG_LEVEL="DEBUG") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = [INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"}, SEARCH]
        process.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [answer["id"] for answer in answers] == [1, 2]
        assert answers[1]["result"]["isError"] is False
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert "ready to search" in process.stderr.read()
    types = [event.type for event in events(indexed)]
    assert types == ["search", "other"], "and the session's end"


def test_case_19_a_call_with_a_lone_surrogate_is_answered_over_stdio(indexed: Settings) -> None:
    call = json.dumps(SEARCH | {"id": 12}).replace('"gzip"', '"x \\ud800 y"')
    lines = [
        json.dumps(INITIALIZE),
        '{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        "no JSON",
        '{"jsonrpc": "2.0", "id": 11, "method": 5}',
        call,
    ]
    with running(indexed, "mcp") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(line + "\n" for line in lines))
        process.stdin.flush()
        answers = {a["id"]: a for a in (json.loads(process.stdout.readline()) for _ in range(4))}
        assert answers.keys() == {1, None, 11, 12}
        assert answers[11]["error"]["code"] == -32600
        assert answers[12]["result"]["isError"] is False
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert events(indexed)[0].query == "x \ufffd y"


@pytest.mark.parametrize("waiting", [False, True], ids=["ready", "starting"])
def test_case_200_half_headers_under_ulimit_160(indexed: Settings, waiting: bool) -> None:
    """Search and probes stay, and one log line is written.

    Those that connect while the server starts are all accepted at its first look.
    """
    command = ["bash", "-c", f'ulimit -n 160; exec {sys.executable} -m retrail_cli "$@"', "serve"]
    with running(indexed, "serve", "--port", "0", command=command) as process:
        url = httpx.URL(url_of(process))
        with httpx.Client(base_url=url, timeout=20) as http, ExitStack() as stack:

            def is_ready() -> bool:
                return http.get("/readyz").is_success

            if not waiting:
                eventually(is_ready, 180, interval=0.5)
            for _ in range(200):
                half = stack.enter_context(socket.create_connection((url.host, url.port), 10))
                half.sendall(b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            eventually(is_ready, 180, interval=0.5)
            for _ in range(3):
                assert httpx.get(f"{url}/healthz", timeout=10).is_success
                answer = httpx.post(f"{url}/v1/search", json={"query": "gzip"}, timeout=10)
                assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert log.count("too many connections") == 1, log
    assert "accept" not in log
    assert len(log) < 10_000, log


def test_a_server_starts_while_kafka_is_down_and_recovers(
    indexed: Settings, own_broker: KafkaBroker
) -> None:
    settings = indexed.model_copy(
        update={"kafka_bootstrap": own_broker.client_address, "serve_ack_seconds": 0.2}
    )
    topics_module.ensure(settings)
    own_broker.stop()
    with running(settings, "serve", "--port", "0") as process:
        url = url_of(process)
        eventually(lambda: answers(f"{url}/readyz") == 200, 180, interval=0.5)

        def search() -> str:
            answer = httpx.post(f"{url}/v1/search", json={"query": "gzip"}, timeout=20)
            assert answer.status_code == 200
            return str(answer.headers["Retrail-Trajectory"])

        first = search()
        assert (
            "retrail_serve_unacknowledged_calls_total 1.0"
            in httpx.get(f"{url}/metrics", timeout=20).text
        )
        own_broker.start()
        eventually(
            lambda: (
                'published_events_total{status="delivered"} 1.0' in httpx.get(f"{url}/metrics").text
            ),
            120,
            interval=0.5,
        )
        second = search()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert {event.trajectory_id for event in events(settings)} == {first, second}


SLOW_LOAD = """
import sys, time
from serving import retriever
retriever.Retriever.__init__.__kwdefaults__["load"] = lambda *_: time.sleep(300)
sys.argv = ["retrail", *sys.argv[1:]]
from retrail_cli import main
main()
"""


@pytest.mark.parametrize("wanted", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_loads_ends_the_server_within_10_s(
    indexed: Settings, wanted: signal.Signals
) -> None:
    command = [sys.executable, "-c", SLOW_LOAD]
    with running(indexed, "serve", "--port", "0", command=command) as process:
        url = url_of(process)
        eventually(lambda: answers(f"{url}/healthz") == 200)
        assert answers(f"{url}/readyz") == 503
        with ThreadPoolExecutor(1) as pool:
            search = pool.submit(answers, f"{url}/v1/documents/gzip")
            assert answers(f"{url}/healthz") == 200
            process.send_signal(wanted)
            began = time.monotonic()
            process.wait(30)
            assert time.monotonic() - began < 10
            assert search.result() in (None, 500, 503)


def answers(url: str) -> int | None:
    """The status of a page; ``None`` if there is no answer."""
    try:
        return httpx.get(url, timeout=20).status_code
    except httpx.TransportError:
        return None


def test_over_http_the_tools_listen(indexed: Settings) -> None:
    arguments = ("mcp", "--transport", "streamable-http", "--port", "0")
    with running(indexed, *arguments) as process:
        url = url_of(process)

        async def work(client: Client, tool: str, **arguments: object) -> Any:
            async with client:
                done = await client.call_tool(tool, arguments)
                assert not done.is_error, done.content
                return done.structured_content

        async def task() -> str:
            def client(mode: str) -> Client:
                return Client(url, mode=mode, read_timeout_seconds=120)

            # A session for each call, and none: the id that is opened finds its search.
            found = await work(client("legacy"), "search", query="open gzip", k=2)
            doc_id = found["hits"][0]["doc_id"]
            opened = await work(client("legacy"), "open_document", doc_id=doc_id)
            await work(client("auto"), "open_document", doc_id=doc_id, reasoning=HELPED)
            assert opened["trajectory_id"] == found["trajectory_id"]
            return str(opened["doc_id"])

        positive = asyncio.run(task())
        assert_one_pair(indexed, positive)
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_a_server_that_cannot_start_names_the_reason(
    retrail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = retrail("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.status == 1
    assert "RETRAIL_SERVE_TOKEN" in done.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in (["serve"], ["mcp", "--transport", "streamable-http"]):
            done = retrail(*command, "--port", port)
            assert done.status == 1
            assert f"Cannot serve on 127.0.0.1:{port}" in done.err
    monkeypatch.setenv("RETRAIL_SERVE_TOKEN", "")
    assert "RETRAIL_SERVE_TOKEN" in retrail("serve").err
