"""What retrail up shows."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from deploy.stack import Part
from deploy.up import Targets, View, line

KAFKA = Part("kafka", "external", "kafka.example:9092", None, None)


def judge(state: str) -> Part:
    return Part("judge", state, "http://127.0.0.1:1/metrics", 42, Path("/d/judge.log"))


def test_a_line_for_every_change() -> None:
    output = StringIO()
    view = View(Console(file=output, width=20))
    view.show([KAFKA, judge("running")])
    view.show([KAFKA, judge("running")])
    view.show([KAFKA, judge("restarting")])

    assert output.getvalue().splitlines() == [
        "kafka: external  kafka.example:9092",
        "judge: running  http://127.0.0.1:1/metrics  pid 42  /d/judge.log",
        "judge: restarting  http://127.0.0.1:1/metrics  pid 42  /d/judge.log",
    ]


def test_prometheus_scrapes_every_worker_that_serves_metrics(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "targets.json")
    starting = Part("index", "starting", "", 44, None, "index")
    for port in (9101, 9102):
        second = Part("judge-2", "running", f"http://127.0.0.1:{port}/metrics", 43, None, "judge")
        targets.update([KAFKA, second, starting])
        # While it restarts it keeps its address, so that Prometheus finds it down.
        targets.update([KAFKA, replace(second, state="restarting", where=""), starting])
        assert json.loads((tmp_path / "targets.json").read_text()) == [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": "judge-2", "role": "judge"}}
        ]
    targets.remove()
    assert list(tmp_path.iterdir()) == []


def test_line_leaves_out_what_is_not_there() -> None:
    assert line(KAFKA) == "kafka: external  kafka.example:9092"
