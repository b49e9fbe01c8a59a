"""What retrail up shows."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from deploy.stack import Part
from deploy.up import View, line, prometheus_targets

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


def test_prometheus_scrapes_every_worker_that_serves_metrics() -> None:
    second = Part("judge-2", "running", "http://127.0.0.1:9101/metrics", 43, None, "judge")
    starting = Part("index", "starting", "", 44, None, "index")
    assert prometheus_targets([KAFKA, second, starting]) == [
        {"targets": ["127.0.0.1:9101"], "labels": {"instance": "judge-2", "role": "judge"}}
    ]


def test_line_leaves_out_what_is_not_there() -> None:
    assert line(KAFKA) == "kafka: external  kafka.example:9092"
