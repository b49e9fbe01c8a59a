"""Prometheus, the alerts and the dashboards on a whole stack whose servers go away for a minute."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from consumers import releases
from deploy import topics as topics_module
from deploy.environment import variables
from deploy.kafka import KafkaBroker
from deploy.processes import Child, Server, free_ports
from deploy.up import TARGETS
from schemas.events import parse
from schemas.judged import Judged
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness
from tests.deploy import dashboards
from tests.deploy.agents import Agents
from tests.servers.milvus_standalone import MilvusStandalone
from tests.servers.milvus_wheel import require_platform
from tests.servers.prometheus import Prometheus, program, promtool
from tests.servers.s3_gateway import S3Gateway, require_tools
from tests.streams.topics import (
    assert_judged_completely,
    assert_same_pairs,
    judged_of,
    judged_offline,
    pairs_of,
    read,
)
from tests.tiny_model import write_tiny_model
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
DOCUMENTS = harness.documents(60)
ROLES = ["index", "judge", "mine", "otlp", "serve", "train"]
TOKEN = "token"
AWAY_SECONDS = 60.0
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

SIGNALS = {
    "retrail:searches:increase1d": 5000.0,
    "retrail:browses_per_search:ratio1d": 1.0,
    "retrail:rejection:ratio1d": 0.3,
    "retrail:verdict_unknown:ratio1d": 0.0,
    "retrail:reasoning_tokens:median1d": 20.0,
    "retrail:browsed_first_hit:ratio1d": 0.5,
}
"""The recordings of a week ago."""


def a_tenth(rules: str) -> str:
    """Rules with a tenth of every duration.

    >>> a_tenth("for: 5m"), a_tenth("deriv(y[30m:1m] offset 7d)")
    ('for: 30s', 'deriv(y[180s:6s] offset 60480s)')
    """

    def scaled(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, int(found[2]) * SECONDS[found[3]] // 10)}s"

    scaled_once = re.sub(r"(for: |interval: |offset |\[)(\d+)([smhd])\b", scaled, rules)
    return re.sub(r"(\[\d+s:)(\d+)([smhd])\b", scaled, scaled_once)


def selectors(rules: str) -> set[str]:
    """Every series that rules read."""
    found = re.findall(r"\b(?:retrail_\w+|up|process_\w+)\{[^}]*\}", rules)
    recorded = re.findall(r"retrail:\w+:\w+(?: offset \w+)?", rules)
    return {*found, *recorded}


def page(url: str) -> str:
    """The text of a page with status 200; else nothing."""
    try:
        answer = httpx.get(url, timeout=30)
    except httpx.HTTPError:
        return ""
    return answer.text if answer.status_code == 200 else ""


@contextmanager
def process(log_file: Path, environment: dict[str, str], *arguments: str) -> Iterator[Any]:
    """``retrail …`` in a process of its own."""
    with log_file.open("w") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "retrail_cli", *arguments],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started
    finally:
        started.terminate()
        started.wait(60)


def history(folder: Path) -> None:
    """Blocks with the recordings of a week ago, which is a tenth of a week here."""
    lines, middle = [], time.time() - 7 * 86400 / 10
    for name, value in SIGNALS.items():
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{name} {value} {middle + 60 * minute:.0f}" for minute in range(-70, 70)]
    file = folder / "history.txt"
    file.write_text("\n".join([*lines, "# EOF"]) + "\n")
    command = [promtool(), "tsdb", "create-blocks-from", "openmetrics", str(file)]
    subprocess.run([*command, str(folder / "data")], check=True, capture_output=True, timeout=60)


def configuration(folder: Path, targets: Path, serve: int) -> str:
    """As docs/monitoring.md has it, with a tenth of every duration."""
    for file in RULES.glob("*.yml"):
        (folder / file.name).write_text(a_tenth(file.read_text()))
    return f"""\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{folder}/rules.yml, {folder}/alerts.yml]
scrape_configs:
  - job_name: retrail
    file_sd_configs: [{{files: ["{targets}"], refresh_interval: 1s}}]
  - job_name: retrail-serve
    authorization: {{credentials: {TOKEN}}}
    static_configs:
      - {{targets: ["127.0.0.1:{serve}"], labels: {{role: serve}}}}
    relabel_configs:
      - {{target_label: job, replacement: retrail}}
"""


class Stack:
    """A stack whose servers are others' processes, with agents and a Prometheus.

    Kafka, Milvus (standalone), S3 and the judging server are processes of this test.
    """

    def __init__(self, folder: Path, exits: ExitStack) -> None:
        self.kafka = KafkaBroker(folder / "kafka", folder / "kafka.log")
        self.milvus = MilvusStandalone(folder / "milvus", folder / "milvus.log")
        self.s3 = S3Gateway(folder / "s3", folder / "s3.log")
        for server in (self.kafka, self.milvus, self.s3):
            server.start()
            exits.callback(server.kill)
        self.s3.make_bucket("models")
        port, judge_port = free_ports(2)
        self.judge = Child(
            "judge-server",
            [sys.executable, "-m", "tests.deploy.agents", str(judge_port)],
            folder / "judge-server.log",
            folder=ROOT,
        )
        self.judge.start()
        exits.callback(self.judge.kill)
        self.settings = Settings(
            kafka_bootstrap=self.kafka.client_address,
            milvus_uri=self.milvus.client_address,
            registry="s3://models/registry",
            topic_prefix="watched_",
            partitions=2,
            data_dir=folder / "data",
            model=str(write_tiny_model(folder / "model")),
            index_max_tokens=32,
            index_grace_seconds=20,
            judge="llm",
            judge_url=f"http://127.0.0.1:{judge_port}/v1",
            judge_model="judge-7b",
            judge_timeout=10,
            train_epochs=1,
            train_max_age_seconds=30,
            gate_margin=1.0,
            gate_min_queries=1,
            serve_token=TOKEN,
            serve_secret=secrets.token_hex(16),
        )
        topics_module.ensure(self.settings)
        harness.publish(self.settings, DOCUMENTS)
        self._environment = {
            **{name: value for name, value in os.environ.items() if "RETRAIL" not in name},
            **variables(self.settings),
            **self.s3.environment,
            "AWS_MAX_ATTEMPTS": "2",
            "OMP_NUM_THREADS": "1",
        }
        ready = folder / "stack.env"
        self.up = exits.enter_context(
            process(folder / "up.log", self._environment, "up", "--otlp", "--env-file", str(ready))
        )
        self._log = folder / "up.log"
        self.alive(ready.exists, 240, "stack")
        self.url = f"http://127.0.0.1:{port}"
        exits.enter_context(
            process(folder / "serve.log", self._environment, "serve", "--port", str(port))
        )
        self.alive(lambda: self.version() > 0, 120, "first release that is served")
        watched = folder / "prometheus"
        watched.mkdir()
        history(watched)
        targets = self.settings.data_dir / TARGETS
        self.prometheus = Prometheus(
            watched, folder / "prometheus.log", configuration(watched, targets, port)
        )
        self.prometheus.start()
        exits.callback(self.prometheus.kill)

    def alive(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for a condition; fails at once if ``retrail up`` has ended."""

        def holds() -> object:
            assert self.up.poll() is None, self._log.read_text()[-3000:]
            return condition()

        eventually(holds, seconds, what, interval=1.0)

    def version(self) -> int:
        """The version that ``serve`` searches; 0 while it is not ready."""
        found = page(f"{self.url}/readyz")
        return int(json.loads(found)["retriever_version"]) if found else 0

    def trained(self) -> int:
        """The version of the last run."""
        return max(releases.read(self.settings).by_version)

    def live(self) -> int:
        """The version that should serve."""
        found = releases.read(self.settings).live
        return found.version if found is not None else 0

    def firing(self, *alerts: str) -> bool:
        """Whether one of some alerts fires, each given by its labels."""
        firing = (f'ALERTS{{alertstate="firing",{labels}}}' for labels in alerts)
        return any(map(self.prometheus.query, firing))

    def ready(self) -> bool:
        """Whether every target is up, and every page of readiness is 200."""
        up = self.prometheus.query('up{job="retrail"}')
        ports = [file.read_text() for file in (self.settings.data_dir / "run").glob("*.metrics")]
        pages = [page(f"http://127.0.0.1:{port}/readyz") for port in ports]
        working = [one["metric"]["role"] for one in up if one["value"][1] == "1"]
        return (
            sorted(working) == ROLES
            and len(pages) == len(ROLES) - 1
            and all(pages)
            and self.version() > 0
        )

    def retrail(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "retrail_cli", *arguments]
        subprocess.run(command, env=self._environment, check=True, timeout=120)

    def without(
        self, take: Callable[[], object], restore: Callable[[], object], *alerts: str
    ) -> None:
        """A server is away for a minute: one of the alerts fires, and clears."""
        assert not self.firing(*alerts)
        began = time.monotonic()
        take()
        try:
            self.alive(lambda: self.firing(*alerts), 120, f"alert of {alerts}")
            time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - began)))
        finally:
            restore()
        self.alive(lambda: not self.firing(*alerts), 180, f"end of {alerts}")
        self.alive(self.ready, 180, f"readiness after {alerts}")


@pytest.mark.deploy
@pytest.mark.timeout(1800)
def test_outages_fire_alerts_and_lose_nothing(tmp_path: Path) -> None:
    for require in (require_platform, require_tools):
        require()
    program("prometheus")
    with ExitStack() as exits:
        stack = Stack(tmp_path, exits)
        began = time.time()
        with Agents(stack.url, TOKEN, DOCUMENTS) as agents:
            stack.alive(lambda: stack.trained() > 1, 180, "a run on the agents' pairs")
            if stack.live() == 1:
                stack.retrail("promote", str(stack.trained()))
            stack.alive(lambda: stack.version() > 1, 120, "a release of the agents' pairs")
            stack.alive(stack.ready, 60, "readiness")

            def killed(server: Server | Child) -> tuple[Callable[[], object], Callable[[], object]]:
                return server.kill, server.start

            down = 'alertname="RetrailDependencyDown",dependency='
            stack.without(*killed(stack.kafka), f'{down}"kafka"')
            stack.without(*killed(stack.milvus), f'{down}"milvus"')
            # The trainer ends at its next run; while a candidate is open, the index worker waits.
            trainer = 'alertname="RetrailWorkerDown",role="train"'
            stack.without(*killed(stack.s3), trainer, f'{down}"registry"')
            stack.without(*killed(stack.judge), 'alertname="RetrailJudgeServerDown"')
            stack.retrail("rollback")
            time.sleep(15)
        lost_nothing(stack, agents)
        end = time.time()
        for folder in filter(None, (str(tmp_path), os.environ.get("PICTURES"))):
            pictures = dashboards.draw(stack.prometheus, began, end, Path(folder))
            assert all(path.stat().st_size < 150_000 for path in pictures)
        missing = [
            name
            for name, query in dashboards.GENERATOR.queries()
            if not dashboards.answers(stack.prometheus, query, began, end)
        ]
        read_by_rules = {
            one
            for file in (tmp_path / "prometheus").glob("*.yml")
            for one in selectors(file.read_text())
        }
        missing += [one for one in read_by_rules if not stack.prometheus.query(one)]
        assert missing == []


def lost_nothing(stack: Stack, agents: Agents) -> None:
    """Every answered call is an event, is judged, and is mined as without any outage."""
    settings, topics = stack.settings, Topics.of(stack.settings)
    events = [parse(message.value()).event for message in read(settings, topics.trajectory_events)]
    kinds = Counter(event.type for event in events if event is not None)
    answered = agents.answered
    assert (kinds["search"], kinds["browse"]) == (answered["search"], answered["open"])
    assert kinds["end"] == answered["trajectories"] > 50

    def judged() -> list[Judged]:
        return [event for events in judged_of(settings).values() for event in events]

    def all_mined() -> bool:
        expected = judged_offline(settings)
        return len(expected) > 100 and {p.pair_id for p in pairs_of(settings)} >= set(expected)

    stack.alive(lambda: len({e.event_id for e in judged()}) == len(events), 120, "verdicts")
    stack.alive(all_mined, 120, "pairs")
    assert_judged_completely(settings)
    assert_same_pairs(settings, judged_offline(settings))
    assert not read(settings, topics.trajectory_events_dlq)
    assert {event.verdict for event in judged() if event.type == "reasoning"} == {
        "relevant",
        "irrelevant",
    }


def test_a_tenth_of_all_rules_is_still_valid(tmp_path: Path) -> None:
    files = []
    for file in RULES.glob("*.yml"):
        (tmp_path / file.name).write_text(a_tenth(file.read_text()))
        files.append(str(tmp_path / file.name))
    subprocess.run([promtool(), "check", "rules", *files], check=True, capture_output=True)
    series = selectors((RULES / "alerts.yml").read_text())
    assert len(series) > 30
    assert any("offset" in one for one in series)
