import io

import pytest
from rich.console import Console

from simulation.demo.report import CorpusFigures, Report, Turn
from simulation.demo.view import REMINDER, View


def turn(number: int, ndcg: float) -> Turn:
    return Turn(number, number + 1, ndcg, 0.7, 0.5, 4.0, pairs=number * 10)


def shown(*, terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=110)
    view = View(console)
    turns = (turn(0, 0.48), turn(1, 0.52))
    with view.showing():
        view.begin("Turn 1 of 1")
        with view.stage("agents", "search and browse") as stage:
            view.progress(stage, 3, 10)
            stage.note = "7 found it"
        view.turn(turns[1])
    view.result(Report(CorpusFigures("docs", 20, 10, 5), "apache-4.3.1", 0, 4, turns, 60.0))
    return output.getvalue()


def test_the_output_states_that_the_agents_are_scripted() -> None:
    for terminal in (False, True):
        text = shown(terminal=terminal)
        assert REMINDER in text
        assert "no LLM" in text


def test_plain_lines_off_a_terminal() -> None:
    text = shown(terminal=False)
    assert "\x1b" not in text
    assert "agents: search and browse" in text
    assert "agents: done, 7 found it" in text
    assert "0.48" in text
    assert "+0.040" in text


def test_the_same_lines_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "\x1b" in text
    assert "agents: done, 7 found it" in text


def test_a_stage_that_fails_is_shown_as_failed() -> None:
    output = io.StringIO()
    view = View(Console(file=output))
    with view.showing():
        view.begin("Turn 1")
        with pytest.raises(ValueError, match="no"), view.stage("training", "learn"):
            raise ValueError("no")
    assert "training: failed" in output.getvalue()
