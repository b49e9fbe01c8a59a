"""Settings of the temporary installation of a run."""

from pathlib import Path

import pytest

from schemas.settings import Settings
from simulation.demo.command import DEFAULTS, gate_note, settings_for_a_run


def test_nobody_is_there_to_approve_and_the_gate_is_one_for_few_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_GATE", "manual")
    chosen = settings_for_a_run(3, tmp_path)

    assert (chosen.gate, chosen.train_seed) == ("auto", 3)
    assert chosen.gate_min_queries == DEFAULTS["gate_min_queries"] < Settings().gate_min_queries
    note = gate_note(chosen)
    assert f"margin {DEFAULTS['gate_margin']:g} and at least" in note
    assert f"defaults are {Settings().gate_margin:g} and {Settings().gate_min_queries})." in note


def test_the_users_own_gate_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIL_GATE_MARGIN", "0.25")
    monkeypatch.setenv("RETRAIL_GATE_MIN_QUERIES", "7")
    chosen = settings_for_a_run(0, tmp_path)

    assert (chosen.gate_margin, chosen.gate_min_queries) == (0.25, 7)
