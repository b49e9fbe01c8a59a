"""The states of workers, and the page of a worker over HTTP."""

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import Counter

from retrail_runtime.health import State, serve_metrics
from retrail_runtime.metrics import DEPENDENCY_UP
from schemas.errors import ConfigurationError
from schemas.settings import Settings

PINGS = Counter("retrail_test_pings_total", "Only for this test.")


def working() -> State:
    return State.WORKING


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


NOT_ALIVE = {
    State.SHUTTING_DOWN,
    State.EVENT_LOOP_BLOCKED,
    State.CONSUMER_UNRESPONSIVE,
    State.STALLED,
    State.STUCK,
}


def test_only_what_a_restart_helps_is_not_alive() -> None:
    assert {state for state in State if not state.value.alive} == NOT_ALIVE
    ready = {State.STANDING_BY, State.BUILDING, State.WORKING}
    assert {state for state in State if state.value.ready} == ready


def test_the_first_state_of_the_table_applies() -> None:
    assert State.of({}) == State.WORKING
    assert State.of({State.STARTING: True, State.STUCK: False}) == State.STARTING
    assert State.of({State.SLOW: True, State.STUCK: True}) == State.STUCK
    assert list(State)[: len(NOT_ALIVE)] == [state for state in State if state in NOT_ALIVE]


def test_the_documentation_has_every_state() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| \w", docs, re.MULTILINE)
    status = {True: "200", False: "503"}
    table = [(s.name.lower(), status[s.value.alive], status[s.value.ready]) for s in State]
    assert rows == table


def test_health_is_read_at_each_request(tmp_path: Path) -> None:
    now = State.RECOVERING
    port = serve_metrics(Settings(data_dir=tmp_path), "mine", lambda: now)
    assert get(port, "/healthz") == (200, "reading again what open trajectories need\n")
    assert get(port, "/readyz") == (503, "reading again what open trajectories need\n")
    now = State.WORKING
    assert get(port, "/readyz") == (200, "working\n")
    now = State.STALLED
    assert get(port, "/healthz") == get(port, "/readyz")
    assert get(port, "/healthz") == (503, "no record is read although there are more\n")
    assert "retrail_worker_alive 0.0" in get(port, "/metrics")[1]


def test_a_worker_that_waits_for_a_dependency_is_not_ready(tmp_path: Path) -> None:
    now = State.WORKING
    port = serve_metrics(Settings(data_dir=tmp_path), "index", lambda: now)
    DEPENDENCY_UP.labels("kafka").set(1)
    assert get(port, "/readyz")[0] == 200
    DEPENDENCY_UP.labels("milvus").set(0)
    assert get(port, "/readyz") == (503, "waiting for milvus\n")
    assert get(port, "/healthz") == (200, "waiting for milvus\n")
    now = State.STUCK
    assert get(port, "/healthz")[0] == 503
    now = State.WORKING
    DEPENDENCY_UP.labels("milvus").set(1)
    assert get(port, "/readyz") == (200, "working\n")


def test_metrics_are_served_and_the_port_is_written_down(tmp_path: Path) -> None:
    port = serve_metrics(Settings(data_dir=tmp_path), "train", working)
    assert (tmp_path / "run" / f"train-{os.getpid()}.metrics").read_text() == str(port)
    PINGS.inc(3)
    status, text = get(port, "/metrics")
    assert status == 200
    assert "retrail_test_pings_total 3.0" in text
    used = re.search(r"^retrail_data_dir_disk_used_ratio (\S+)$", text, re.MULTILINE)
    assert used is not None
    assert 0 < float(used[1]) <= 1
    assert get(port, "/healthz")[0] == get(port, "/readyz")[0] == 200
    assert get(port, "/elsewhere")[0] == 404


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    port = serve_metrics(Settings(data_dir=tmp_path), "train", working)
    with pytest.raises(ConfigurationError, match=rf"{port}.*RETRAIL_METRICS_PORT"):
        serve_metrics(Settings(data_dir=tmp_path, metrics_port=port), "train", working)
