"""`retrail mine`: the offline run as a command."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.pairs import LabelledPair
from tests.shared_data import LRAT, needs_lrat


def event(seq: int, kind: str, **data: Any) -> str:
    envelope = {
        "event_id": f"e{seq}",
        "trajectory_id": "t1",
        "seq": seq,
        "occurred_at": "2026-11-23T10:00:00+00:00",
        "agent": {"name": "a", "model": "m"},
        "type": kind,
    }
    return json.dumps(envelope | data)


TRAJECTORY = [
    event(0, "search", query="q", hits=[{"doc_id": d, "rank": r} for r, d in enumerate("abc", 1)]),
    event(1, "browse", doc_id="b"),
    event(2, "reasoning", text="It says 1965.", about="b"),
    event(3, "end", outcome="correct"),
]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(TRAJECTORY) + "\n")
    return path


def test_pairs_go_to_standard_output_and_what_was_done_to_standard_error(
    retrail: Any, events: Path
) -> None:
    done = retrail("mine", events, "--format", "events")
    assert done.status == 0
    [line] = done.out.splitlines()
    pair = LabelledPair.model_validate_json(line)
    assert (pair.query, pair.positive, pair.negatives) == ("q", "b", ("a", "c"))
    assert (pair.judge, pair.verdict, pair.outcome) == ("local", "relevant", "correct")
    assert done.err == "1 pairs (1 relevant, 0 irrelevant) from 1 files\n"


def test_options_win_over_variables(
    retrail: Any, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_JUDGE", "local")
    monkeypatch.setenv("RETRAIL_PROFILE", "reference")
    done = retrail("mine", events, "--format=events", "--judge=none", "--profile=paper")
    pair = LabelledPair.model_validate_json(done.out)
    assert (pair.judge, pair.profile) == ("none", "paper")


def test_the_file_appears_whole_or_not_at_all(retrail: Any, events: Path, tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl"
    output.write_text("of yesterday\n")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join([*TRAJECTORY, "{"]))
    done = retrail("mine", broken, "--format", "events", "--output", output)
    assert done.status == 1
    assert f"{broken}:5:" in done.err
    assert output.read_text() == "of yesterday\n"

    done = retrail("mine", events, "--format", "events", "--output", output)
    assert done.status == 0
    assert LabelledPair.model_validate_json(output.read_text()).positive == "b"
    assert str(output) in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "broken.jsonl",
        "events.jsonl",
        "pairs.jsonl",
    ]


@pytest.mark.parametrize("output", ["absent/pairs.jsonl", "folder"])
def test_an_output_that_cannot_be_written_is_named(
    output: str, retrail: Any, events: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    done = retrail("mine", events, "--format", "events", "--output", tmp_path / output)
    assert done.status == 1
    assert "cannot be written" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"events.jsonl", "folder"}


def test_a_path_that_is_not_there_is_named(retrail: Any, tmp_path: Path) -> None:
    done = retrail("mine", tmp_path / "absent", "--format", "lrat")
    assert done.status == 1
    assert f"{tmp_path / 'absent'}: no such file" in done.err


@needs_lrat
def test_real_trajectories(retrail: Any, tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl"
    done = retrail("mine", LRAT, "--format", "lrat", "--judge", "none", "--output", output)
    assert done.status == 0
    pairs = [LabelledPair.model_validate_json(line) for line in output.read_text().splitlines()]
    assert pairs
    assert {pair.verdict for pair in pairs} == {"relevant"}
    assert f"{len(pairs)} pairs" in done.err
