"""Three replicas behind a balancer, one killed every few seconds, and agents that go on working.

A call that its replica did not answer is sent again, to the next one. So the log of a trajectory is
the events of its calls in order; before those of a call, the first of them may stand once for each
attempt whose replica died.
"""

import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from deploy import topics as topics_module
from schemas.settings import Settings
from serving.problems import TRAJECTORY_HEADER
from tests.agents.corpus import TEXTS
from tests.agents.servers import COMMAND
from tests.serving.processes import events, live_index, running, url_of
from tests.streams.fleet import Fleet, installation
from tests.streams.topics import assert_same_pairs
from tests.streams.trajectories import REASONINGS, mined_offline
from tests.waiting import eventually

REPLICAS = 3
AGENTS = 8
THOUGHT_SECONDS = 0.3
"""Before a call of an agent."""
SHARED = {
    "RETRAIL_SERVE_SECRET": "a secret that all replicas share",
    # A replica answers only what Kafka has acknowledged.
    "RETRAIL_SERVE_ACK_SECONDS": "60",
}


@dataclass
class Call:
    """A call that was answered: the events that it published, and its attempts that were not."""

    events: list[str]
    broken: int


class Api(Protocol):
    """How agents call a kind of server."""

    command: Sequence[str]

    def request(self, name: str, trajectory: str | None, body: dict[str, Any]) -> dict[str, Any]:
        """The arguments of :meth:`httpx.Client.post`, with the path as ``url``."""

    def answer(self, response: httpx.Response) -> dict[str, Any]:
        """The answer in a response."""


class Http:
    """`retrail serve`."""

    command = ("serve",)

    def request(self, name: str, trajectory: str | None, body: dict[str, Any]) -> dict[str, Any]:
        path = f"trajectories/{trajectory}/end" if name == "end" else name
        headers = {TRAJECTORY_HEADER: trajectory} if trajectory else {}
        return {"url": f"/v1/{path}", "json": body, "headers": headers}

    def answer(self, response: httpx.Response) -> dict[str, Any]:
        return dict(response.json())


class Mcp:
    """`retrail mcp` over HTTP, by a client without sessions; trajectories end by idleness."""

    command = ("mcp", "--transport", "streamable-http")

    def request(self, name: str, trajectory: str | None, body: dict[str, Any]) -> dict[str, Any]:
        tool = {"open": "open_document"}.get(name, name)
        params = {"name": tool, "arguments": body | {"trajectory_id": trajectory}}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {"Accept": "application/json, text/event-stream"}
        return {"url": "/mcp", "json": call, "headers": headers}

    def answer(self, response: httpx.Response) -> dict[str, Any]:
        text = response.text
        if response.headers["content-type"].startswith("text/event-stream"):
            [text] = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        result = json.loads(text)["result"]
        assert not result.get("isError"), result
        return dict(result["structuredContent"])


@dataclass
class Balancer:
    """Sends each call to the next replica, until one answers it."""

    api: Api
    urls: list[str]
    _turn: Iterator[int] = field(default_factory=count)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=120))

    def call(self, name: str, trajectory: str | None, **body: Any) -> tuple[dict[str, Any], int]:
        """The answer, and how many replicas died over the call."""
        request, broken = self.api.request(name, trajectory, body), 0
        path = request.pop("url")
        while True:
            with self._lock:
                url = self.urls[next(self._turn) % len(self.urls)]
            try:
                response = self._http.post(f"{url}{path}", **request)
            except httpx.ConnectError:
                continue
            except httpx.TransportError:
                broken += 1
                continue
            assert response.status_code == 200, response.text
            return self.api.answer(response), broken


def work(balancer: Balancer, seed: int, think: Callable[[], object]) -> tuple[str, list[Call]]:
    """A trajectory of 3 to 10 calls, drawn from its seed; returns its id and its calls."""
    draw = random.Random(seed)
    calls: list[Call] = []
    trajectory: str | None = None
    hits: list[str] = []
    length = draw.randint(3, 10)
    for place in range(length):
        think()
        reasoning = draw.choice(REASONINGS) if calls else None
        said = [f"reasoning {reasoning}"] if reasoning else []
        body: dict[str, Any] = {"reasoning": reasoning} if reasoning else {}
        if place == length - 1 and isinstance(balancer.api, Http):
            answer, broken = balancer.call("end", trajectory, outcome="correct", **body)
            said.append("end correct")
        elif not hits or draw.random() < 0.3 or place == length - 1:
            query = f"{draw.choice(list(TEXTS.values()))} {draw.randint(0, 9)}"
            answer, broken = balancer.call("search", trajectory, query=query, k=4, **body)
            # Over MCP an id carries the handle of its trajectory.
            hits = [hit["doc_id"].partition("~")[0] for hit in answer["hits"]]
            said.append(f"search {query} {hits}")
            if trajectory is None:
                # Each attempt began a trajectory of its own.
                trajectory, broken = answer["trajectory_id"], 0
        else:
            doc_id = draw.choice(hits)
            answer, broken = balancer.call("open", trajectory, doc_id=doc_id, **body)
            said.append(f"browse {doc_id}")
        assert answer["trajectory_id"] == trajectory
        calls.append(Call(said, broken))
    assert trajectory is not None
    return trajectory, calls


def told(event: Any) -> str:
    """An event as :func:`work` names it."""
    match event.type:
        case "search":
            return f"search {event.query} {[hit.doc_id for hit in event.hits]}"
        case "browse":
            return f"browse {event.doc_id}"
        case "reasoning":
            return f"reasoning {event.text}"
        case _:
            return f"end {event.outcome}"


def pattern(calls: Sequence[Call]) -> str:
    """A regular expression of the events that calls may have left, a line each."""
    parts = []
    for call in calls:
        lines = [re.escape(f"{line}\n") for line in call.events]
        begun = ""
        for line in reversed(lines):
            begun = f"(?:{line}{begun})?"
        parts.append(begun * call.broken + "".join(lines))
    return "".join(parts)


@dataclass
class Replicas:
    """Processes behind a balancer; each can be killed and replaced."""

    settings: Settings
    balancer: Balancer
    stack: ExitStack
    command: Sequence[str]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    kills: int = 0

    def start(self) -> None:
        """All at once."""
        self.processes = [self._process() for _ in range(REPLICAS)]
        self.balancer.urls = [self._ready(process) for process in self.processes]

    def replace(self, place: int) -> None:
        """Kill a replica, start another one in its place, and wait until it answers."""
        self.processes[place].kill()
        self.kills += 1
        self.processes[place] = self._process()
        self.balancer.urls[place] = self._ready(self.processes[place])

    def _process(self) -> subprocess.Popen[str]:
        arguments = (*self.balancer.api.command, "--port", "0")
        return self.stack.enter_context(
            running(self.settings, *arguments, command=self.command, **SHARED)
        )

    @staticmethod
    def _ready(process: subprocess.Popen[str]) -> str:
        """The URL of a replica, once it answers."""
        url = url_of(process).removesuffix("/mcp")

        def ready() -> bool:
            return httpx.get(f"{url}/readyz", timeout=60).is_success

        eventually(ready, 180, "replica", interval=0.2)
        return url


@pytest.mark.parametrize(
    ("api", "trajectories", "kills", "real"),
    [
        pytest.param(Http(), 50, 5, False, id="serve"),
        pytest.param(Http(), 500, 20, True, id="serve 500", marks=pytest.mark.faults),
        pytest.param(Mcp(), 500, 20, False, id="mcp 500", marks=pytest.mark.faults),
    ],
)
@pytest.mark.timeout(1800)
def test_trajectories_are_whole_while_replicas_are_killed(
    api: Api,
    trajectories: int,
    kills: int,
    real: bool,
    kafka: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """At least so many trajectories and kills; ``real``: with a model and an index in Milvus."""
    settings: Settings = (
        request.getfixturevalue("settings") if real else installation(kafka, tmp_path)
    )
    topics_module.ensure(settings)
    command = (sys.executable, "-m", "retrail_cli") if real else COMMAND
    fleet, ended = Fleet(settings, tmp_path), threading.Event()
    found: dict[str, list[Call]] = {}
    balancer, seeds = Balancer(api, []), count()

    def agent(_: int) -> None:
        while not ended.is_set():
            trajectory, calls = work(balancer, next(seeds), lambda: ended.wait(THOUGHT_SECONDS))
            found[trajectory] = calls

    with ExitStack() as stack:
        if real:
            stack.enter_context(live_index(settings, TEXTS, tmp_path))
        stack.callback(fleet.kill_all)
        replicas = Replicas(settings, balancer, stack, command)
        replicas.start()
        with ThreadPoolExecutor(AGENTS) as pool:
            agents = [pool.submit(agent, number) for number in range(AGENTS)]
            try:
                while len(found) < trajectories or replicas.kills < kills:
                    replicas.replace(replicas.kills % REPLICAS)
                    assert not any(each.done() for each in agents)
            finally:
                ended.set()
        for each in agents:
            each.result()
        # Every answered call was acknowledged, so its events are there without waiting.
        published = events(settings)
        log: dict[str, str] = {}
        for event in published:
            log[event.trajectory_id] = f"{log.get(event.trajectory_id, '')}{told(event)}\n"
        for trajectory, calls in found.items():
            assert re.fullmatch(pattern(calls), log[trajectory]), (calls, log[trajectory])
        # Beside them only the first attempts at searches whose replica died.
        assert all(log[other].count("\n") == 1 for other in log.keys() - found.keys())
        expected = mined_offline(published, settings)
        assert len({pair.trajectory_id for pair in expected.values()}) > trajectories / 2
        for role in ("judge", "mine"):
            fleet.start(
                role, RETRAIL_MINE_IDLE_SECONDS="120" if api.command[0] == "mcp" else "1800"
            )
        # Attempts that began a trajectory and were not answered stay open; they have no pair.
        # Over MCP none is ended, so they close by idleness.
        fleet.until_pairs(expected, 300)
        assert assert_same_pairs(settings, expected) == 0
