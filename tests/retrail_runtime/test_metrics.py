"""The page of a worker, over HTTP."""

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import Counter

from retrail_runtime.metrics import Health, serve_metrics
from schemas.errors import ConfigurationError
from schemas.settings import Settings

PINGS = Counter("retrail_test_pings_total", "Only for this test.")


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_is_read_at_each_request(tmp_path: Path) -> None:
    now = Health(alive=True, ready=False, detail="folding")
    port = serve_metrics(Settings(data_dir=tmp_path), "mine", lambda: now)
    assert get(port, "/healthz") == (200, "folding\n")
    assert get(port, "/readyz") == (503, "folding\n")
    now = Health(alive=True, ready=True, detail="working")
    assert get(port, "/readyz") == (200, "working\n")
    now = Health(alive=False, ready=True, detail="stalled")
    assert get(port, "/healthz") == (503, "stalled\n")
    assert get(port, "/readyz") == (503, "stalled\n")


def test_metrics_are_served_and_the_port_is_written_down(tmp_path: Path) -> None:
    port = serve_metrics(Settings(data_dir=tmp_path), "train")
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
    port = serve_metrics(Settings(data_dir=tmp_path), "train")
    with pytest.raises(ConfigurationError, match=rf"{port}.*RETRAIL_METRICS_PORT"):
        serve_metrics(Settings(data_dir=tmp_path, metrics_port=port), "train")
