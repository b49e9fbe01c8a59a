"""What retrail up shows."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from deploy.stack import Part
from deploy.up import View, line, prometheus_targets, table

KAFKA = Part("kafka", "external", "kafka.example:9092", None, 0, None)


def judge(state: str, restarts: int = 0) -> Part:
    return Part("judge", state, "http://127.0.0.1:1/metrics", 42, restarts, Path("/d/judge.log"))


def test_lines_off_a_terminal_only_when_something_changes() -> None:
    output = StringIO()
    view = View(Console(file=output, width=20))
    view.begin([KAFKA, judge("running")])
    view.show([KAFKA, judge("running")])
    view.show([KAFKA, judge("restarting", 1)])
    view.end()

    assert output.getvalue().splitlines() == [
        "kafka: external  kafka.example:9092",
        "judge: running  http://127.0.0.1:1/metrics  pid 42  /d/judge.log",
        "judge: restarting  http://127.0.0.1:1/metrics  pid 42  /d/judge.log",
    ]


def test_prometheus_scrapes_every_worker_that_serves_metrics() -> None:
    second = Part("judge-2", "running", "http://127.0.0.1:9101/metrics", 43, 0, None, "judge")
    starting = Part("index", "starting", "", 44, 0, None, "index")
    assert prometheus_targets([KAFKA, second, starting]) == [
        {"targets": ["127.0.0.1:9101"], "labels": {"instance": "judge-2", "role": "judge"}}
    ]


def test_table_on_a_terminal() -> None:
    output = StringIO()
    view = View(Console(file=output, width=160, force_terminal=True))
    view.begin([KAFKA])
    view.show([KAFKA, judge("running", 2)])
    view.say("[judge] exited")
    view.end()

    shown = output.getvalue()
    assert "[judge] exited" in shown
    for cell in ("judge", "running", "42", "2", "/d/judge.log"):
        assert cell in shown


def test_every_state_has_a_colour() -> None:
    states = ("running", "external", "starting", "restarting", "stopped")
    assert table([judge(state) for state in states]).row_count == len(states)


def test_line_leaves_out_what_is_not_there() -> None:
    assert line(KAFKA) == "kafka: external  kafka.example:9092"
