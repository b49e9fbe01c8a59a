"""deploy/compose, run by podman-compose: publish, pair, release, swap and search in containers.

Kafka, Milvus, S3 and Prometheus are images of what the tests have. Containers share the host's
network and are privileged here, so an override gives every process its own port.
"""

import json
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.processes import free_ports
from tests.deploy.images import PODMAN, ROOT, RUN, build_server, done
from tests.deploy.test_compose_files import FOLDER, SERVICES, WORKERS, variables
from tests.waiting import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(3600)]

SERVERS = ("kafka", "milvus", "s3", "prometheus")
NEEDS = 60
TRAINING = {
    "FLEET_NEEDS": str(NEEDS),
    "RETRAIL_TRAIN_MIN_PAIRS": "50",
    "RETRAIL_TRAIN_MAX_AGE_SECONDS": "5",
    "RETRAIL_TRAIN_EPOCHS": "1",
    "RETRAIL_INDEX_MAX_TOKENS": "64",
    "RETRAIL_GATE_MIN_QUERIES": "1",
    "RETRAIL_GATE_MARGIN": "1",
}
"""A release of a few needs: the gate has few queries, and is tested elsewhere."""


def override(ports: dict[str, int]) -> dict[str, Any]:
    """What this machine needs: the host's network, its capabilities, and a port for each."""
    hosts = [f"{name}:127.0.0.1" for name in SERVICES]
    shared: dict[str, Any] = {"network_mode": "host", "privileged": True, "extra_hosts": hosts}
    shared["ulimits"] = {"nofile": 4096, "nproc": 4096}
    services: dict[str, dict[str, Any]] = {name: dict(shared) for name in SERVICES}
    for name in (*WORKERS, "serve", "mcp"):
        services[name]["environment"] = {"RETRAIL_METRICS_PORT": str(ports[name])}
    for name in ("serve", "mcp"):
        services[name]["command"] = [*SERVICES[name]["command"][:-1], str(ports[name])]
    kafka = SERVICES["kafka"]["environment"]
    services["kafka"]["environment"] = {
        name: re.sub(
            r":(909[234])\b",
            lambda found: f":{ports[found[1]]}",
            value.replace("//:", "//127.0.0.1:"),
        )
        for name, value in kafka.items()
        if name.endswith(("LISTENERS", "VOTERS"))
    }
    services["milvus"]["entrypoint"] = [
        *("python3", "-I", "-S", "/opt/tests/servers/private_network.py"),
        *(str(ports["milvus"]), "19530"),
    ]
    services["s3"]["entrypoint"] = [
        part.replace(":7070", f"127.0.0.1:{ports['s3']}") for part in SERVICES["s3"]["entrypoint"]
    ]
    services["prometheus"]["command"] = [
        part.replace(":9090", f"127.0.0.1:{ports['prometheus']}")
        for part in SERVICES["prometheus"]["command"]
    ]
    return {"services": services}


class Installation:
    """A copy of deploy/compose with its override, under a project name of its own."""

    def __init__(self, folder: Path, images: dict[str, str]) -> None:
        """Nothing runs before ``compose("up", …)``."""
        names = (*WORKERS, "serve", "mcp", *SERVERS, "9092", "9093", "9094")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.token = secrets.token_hex(16)
        self.project = f"retrail-test-{secrets.token_hex(4)}"
        self.folder = folder / "deploy" / "compose"
        shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("*.pyc"))
        given = variables((FOLDER / ".env.example").read_text()) | TRAINING | images
        given |= {
            "KAFKA_PORT": str(self.ports["9094"]),
            "RETRAIL_KAFKA_BOOTSTRAP": f"kafka:{self.ports['9092']}",
            "RETRAIL_MILVUS_URI": f"http://milvus:{self.ports['milvus']}",
            "AWS_ENDPOINT_URL": f"http://s3:{self.ports['s3']}",
        }
        self._write(".env", "".join(f"{name}={value}\n" for name, value in given.items()))
        key = secrets.token_hex(16)
        registry = f"[default]\naws_access_key_id = retrail\naws_secret_access_key = {key}\n"
        self._write("secrets/registry", registry)
        self._write("secrets/serve-token", self.token)
        self._write("secrets/serve-secret", secrets.token_hex(32))
        self._write("secrets/grafana-password", "unused")
        self._write("override.yaml", yaml.safe_dump(override(self.ports)))
        scraping = (FOLDER / "prometheus.yml").read_text().replace("15s", "1s")
        scraping = re.sub(r'"(\w+):9100"', lambda f: f'"{f[1]}:{self.ports[f[1]]}"', scraping)
        self._write("prometheus.yml", scraping)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        """``podman-compose …``, which succeeds."""
        return done(
            *(sys.executable, "-m", "podman_compose", "--podman-args=--runtime runc"),
            *("--in-pod", "false", "-p", self.project, "-f", "compose.yaml", "-f", "override.yaml"),
            *(f"--profile={name}" for name in ("mcp", "monitoring", "tools", "example")),
            *arguments,
            cwd=self.folder,
            timeout=timeout,
        )

    def run(self, service: str, *command: str, timeout: float = 300) -> str:
        """The output of a service that ends."""
        return self.compose("run", "--rm", "-T", "--no-deps", service, *command, timeout=timeout)

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call of ``serve`` with its token."""
        url = f"http://127.0.0.1:{self.ports['serve']}{path}"
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return httpx.request(method, url, headers=headers, timeout=60, **options)

    def search(self) -> dict[str, Any]:
        """The answer to a search."""
        answer = self.call("POST", "/v1/search", json={"query": "decode a line of base64 data"})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The answer of Prometheus."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query"
        answer = httpx.get(url, params={"query": expression}, timeout=60)
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def logs(self) -> str:
        """The end of every log, for a failed test."""
        listed = done(*PODMAN, "ps", "-a", "--format={{.Names}}", f"--filter=name={self.project}")
        return "\n".join(
            f"== {name}\n"
            + subprocess.run(
                [*PODMAN, "logs", "--tail=6", name],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ).stdout
            for name in listed.split()
        )


@pytest.fixture
def installation(image: Callable[[str], str], tmp_path: Path) -> Iterator[Installation]:
    images = {f"{name.upper()}_IMAGE": build_server(name) for name in SERVERS}
    images |= {f"{name.upper()}_IMAGE": image(name) for name in ("streams", "trainer", "serve")}
    found = Installation(tmp_path, images)
    try:
        yield found
    finally:
        print(found.logs())
        found.compose("down", "--volumes", "--timeout", "5")


def answers(call: Callable[[], httpx.Response]) -> bool:
    try:
        return call().status_code == 200
    except httpx.HTTPError:
        return False


def test_publish_pair_release_swap_and_search(
    installation: Installation, image: Callable[[str], str]
) -> None:
    started = time.monotonic()

    def took(what: str) -> None:
        print(f"{what}: {time.monotonic() - started:.0f} s")

    installation.compose("up", "--detach", *SERVERS, "topics", *WORKERS, "serve", "mcp")
    took("up")
    for role in WORKERS:
        ready = f"http://127.0.0.1:{installation.ports[role]}/readyz"
        eventually(
            lambda at=ready: answers(lambda: httpx.get(at, timeout=30)), 300, role, interval=1.0
        )
    took("workers ready")
    print(installation.run("retrail", "doctor"))
    installation.run("fleet", timeout=1500)
    took("the fleet has published")
    eventually(lambda: answers(lambda: installation.call("GET", "/readyz")), 120, "serve ready")
    mcp = f"http://127.0.0.1:{installation.ports['mcp']}/readyz"
    eventually(lambda: answers(lambda: httpx.get(mcp, timeout=30)), 120, "mcp ready")

    def pairs() -> list[dict[str, Any]]:
        lines = installation.run("retrail", "pairs", "--jsonl").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    found = eventually(pairs, 120, "pairs", interval=1.0)
    assert {pair["verdict"] for pair in found} == {"relevant", "irrelevant"}
    took("pairs")

    # An agent with the client alone, and one that works through serve.
    corpus = installation.folder / "corpus.jsonl"
    corpus.write_text(json.dumps({"doc_id": "agent-doc", "text": "Open a gzip file."}) + "\n")
    done(
        *(*RUN, "--rm", f"--volume={corpus}:/corpus.jsonl:ro"),
        f"--env=RETRAIL_KAFKA_BOOTSTRAP=127.0.0.1:{installation.ports['9094']}",
        *(image("client-example"), "/corpus.jsonl", "how do I open a gzip file"),
    )
    eventually(
        lambda: any(pair["positive"] == "agent-doc" for pair in pairs()), 120, "pair", interval=2.0
    )
    took("the agent's pair")

    def swapped() -> bool:
        return bool(installation.search()["retriever_version"] >= 2)

    eventually(swapped, 1200, "a release that answers", interval=2.0)
    took("release 2 answers")
    releases = installation.run("retrail", "releases")
    assert "live" in releases

    for role in (*WORKERS, "serve"):
        up = f'up{{job="retrail",role="{role}"}}'
        eventually(lambda up=up: installation.query(up)[0]["value"][1] == "1", 60, up, interval=1.0)
    for metric in ("retrail_live_version", "retrail_index_live_version"):
        live = f'max(({metric}{{job="retrail"}}))'
        eventually(lambda live=live: float(installation.query(live)[0]["value"][1]) >= 2, 60, live)
    queries = {
        target["expr"]
        for path in sorted((ROOT / "deploy" / "grafana").glob("retrail-*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    }
    unanswered = {
        query
        for query in queries
        if not installation.query(query.replace("$__rate_interval", "1m"))
    }
    print(f"{len(unanswered)} of {len(queries)} queries of the dashboards have no answer")
    print(*sorted(unanswered), sep="\n")
    assert len(unanswered) < len(queries) / 2

    installation.compose("stop", *WORKERS, "serve", "mcp", timeout=300)
    for role in (*WORKERS, "serve", "mcp"):
        inspect = (*PODMAN, "inspect", "--format={{.State.ExitCode}}")
        name = f"{installation.project}_{role}_1"
        assert done(*inspect, name).strip() == "0", role
    took("stopped")
