"""The dashboards are those of their description, and a real Prometheus answers every query."""

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.errors import MissingToolError
from tests.deploy import dashboards
from tests.servers.prometheus import Prometheus, scraping
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
METRICS = re.findall(
    r"^\| `(retrail_\w+)` \| (\w+) \| (.*?) ?\|", (ROOT / "docs" / "metrics.md").read_text(), re.M
)
VALUES = {
    "type": ("search", "browse"),
    "result": ("accepted", "relevant", "irrelevant", "unsearched", "unknown"),
    "verdict": ("relevant", "irrelevant"),
    "operation": ("search",),
}
"""Values of the labels that queries choose by; every other label has one value."""


def exposition(number: int) -> str:
    """Every documented metric in Prometheus' text format; counters grow with ``number``."""
    lines = []
    for name, kind, labels in METRICS:
        names = [label for label in labels.split(", ") if label]
        for values in itertools.product(*(VALUES.get(label, ("a",)) for label in names)):
            pairs = [f'{label}="{value}"' for label, value in zip(names, values, strict=True)]
            if kind == "histogram":
                buckets = [[*pairs, f'le="{bound}"'] for bound in ("1.0", "2.0", "+Inf")]
                lines += [f"{name}_bucket{{{','.join(b)}}} {number}" for b in buckets]
                lines += [
                    f"{name}_{part}{{{','.join(pairs)}}} {number}" for part in ("sum", "count")
                ]
            else:
                lines.append(f"{name}{{{','.join(pairs)}}} {number}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """Address of a process that has every metric, with counters that grow at each scrape."""
    numbers = itertools.count(1)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition(next(numbers)).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def prometheus(target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes the target."""
    folder = tmp_path_factory.mktemp("prometheus")
    server = Prometheus(folder, folder / "prometheus.log", scraping(target))
    try:
        server.start()
    except MissingToolError as error:
        pytest.skip(str(error))
    yield server
    server.kill()


@pytest.mark.integration
def test_prometheus_answers_every_query(prometheus: Prometheus) -> None:
    def missing() -> list[str]:
        found = []
        for name, query in dashboards.GENERATOR.queries():
            query = query.replace("$__rate_interval", "10s").replace("offset 1m", "offset 1s")
            if "annotation: Rollback" in name:  # the test's counters only grow
                query = query.replace("<", ">")
            if not prometheus.query(query):
                found.append(f"{name}: {query}")
        return found

    # Rates need two scrapes.
    with contextlib.suppress(AssertionError):
        eventually(lambda: not missing(), timeout=60)
    assert missing() == []


def test_the_files_are_those_of_the_description() -> None:
    files = dashboards.GENERATOR.files()
    assert {path.name for path in files} == {
        path.name for path in (ROOT / "deploy" / "grafana").glob("*.json")
    }
    for path, content in files.items():
        assert path.read_text() == content, "run `python deploy/grafana/generate.py`"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy/grafana").glob("*.json")), ids=lambda p: p.stem
)
def test_a_dashboard_is_one_of_grafana(path: Path) -> None:
    read = Dashboard.from_json(json.loads(path.read_text()))
    assert read.uid == path.stem
    assert read.tags == ["retrail"]
    panels = read.panels or []
    numbers = [panel.id_val for panel in panels]
    assert len(set(numbers)) == len(numbers)
    graphs = [panel for panel in panels if panel.type_val == "timeseries"]
    assert graphs
    for panel in graphs:
        assert panel.datasource.uid == "${datasource}"
        assert panel.field_config.defaults.unit
