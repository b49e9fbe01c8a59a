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
    assert done.err.splitlines() == [
        "1 pairs (1 relevant, 0 irrelevant) from 1 trajectory",
        "events: 1 files, 1 trajectories, 4 steps, 1 searches, 3 hits, 1 opens, 1 reasonings",
    ]


def test_options_win_over_variables(
    retrail: Any, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_JUDGE", "local")
    monkeypatch.setenv("RETRAIL_PROFILE", "reference")
    done = retrail("mine", events, "--format=events", "--judge=none", "--profile=paper")
    pair = LabelledPair.model_validate_json(done.out)
    assert (pair.judge, pair.profile) == ("none", "paper")


def test_the_file_appears_whole_or_with_strict_not_at_all(
    retrail: Any, events: Path, tmp_path: Path
) -> None:
    output = tmp_path / "pairs.jsonl"
    output.write_text("of yesterday\n")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join([*TRAJECTORY, "{"]))
    done = retrail("mine", broken, "--strict", "--output", output)
    assert done.status == 1
    assert f"{broken}:5:" in done.err
    assert output.read_text() == "of yesterday\n"

    done = retrail("mine", events, "--output", output)
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


def a_run(*doc_ids: str, opened: str = "d2") -> dict[str, Any]:
    """A run as LRAT writes it."""
    return {
        "query_id": 1,
        "result": [
            {
                "type": "tool_call",
                "tool_name": "search",
                "arguments": '{"query": "lamp"}',
                "output": "\n".join(f"DocID:{doc_id}" for doc_id in doc_ids),
            },
            {
                "type": "tool_call",
                "tool_name": "visit",
                "arguments": json.dumps({"docid": opened}),
                "output": "1871",
            },
            {"type": "reasoning", "output": "The page gives the year directly: 1871."},
            {"type": "output_text", "output": "1871"},
        ],
    }


def test_what_is_broken_is_named_and_the_others_are_mined(
    retrail: Any, events: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.json").write_text('{"result": [')
    report = tmp_path / "report.txt"
    done = retrail("mine", tmp_path, "--report", report)
    assert done.status == 1
    assert LabelledPair.model_validate_json(done.out).positive == "b"
    assert f"{tmp_path / 'broken.json'}: is not JSON" in done.err
    assert "1 could not be read and were left out, 0 could not be read to their end." in done.err
    written = json.loads(report.read_text())
    assert (written["left_out"], written["exit_status"]) == (1, 1)
    assert written["formats"]["events"]["trajectories"] == 1


def test_figures_that_cannot_be_right_are_a_loud_warning(retrail: Any, tmp_path: Path) -> None:
    """Exit status 3 goes before 1: nothing is read in silence."""
    (tmp_path / "run.json").write_text(json.dumps(a_run("d1", "d2", opened="elsewhere")))
    (tmp_path / "broken.json").write_text("{")
    done = retrail("mine", tmp_path)
    assert (done.status, done.out) == (3, "")
    assert "WARNING: lrat: no opened document is a hit of a search." in done.err
    assert "The first: visit of 'elsewhere'" in done.err


def test_tools_of_ones_own_and_ids_of_ones_own_documents(retrail: Any, tmp_path: Path) -> None:
    log = {
        "messages": [
            {"role": "user", "content": "When was it lit?"},
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "kb_lookup", "arguments": '{"needle": "lamp"}'},
                    }
                ],
            },
            {
                "role": "tool",
                "tool_call_id": "1",
                "content": json.dumps(
                    {
                        "found": [
                            {"id": "u-1", "metadata": {"source": "tides.md"}},
                            {"id": "u-2", "metadata": {"source": "x"}, "text": "Lit in 1871."},
                        ]
                    }
                ),
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "2",
                        "type": "function",
                        "function": {"name": "kb_read", "arguments": '{"ref": "u-2"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "2", "content": "Lit in 1871."},
            {
                "role": "assistant",
                "reasoning_content": "The page gives the year directly: 1871.",
                "content": "1871",
            },
        ]
    }
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(log))
    unknown = retrail("mine", path)
    assert unknown.status == 3
    assert "unknown tools: kb_lookup 1, kb_read 1" in unknown.err
    assert "openai: no step is a search" in unknown.err

    tools = tmp_path / "tools.toml"
    tools.write_text(
        '[[search]]\nnames = ["kb_lookup"]\nquery = ["needle"]\nhits = ["found"]\n'
        '[[open]]\nnames = ["kb_read"]\nid = ["ref"]\n'
    )
    documents = tmp_path / "corpus.txt.jsonl"
    documents.write_text(
        '{"doc_id": "tides.md", "text": "Tides."}\n{"doc_id": "d7", "text": "Lit in 1871."}\n'
    )
    done = retrail("mine", path, "--tools", tools, "--documents", documents)
    assert done.status == 0, done.err
    pair = LabelledPair.model_validate_json(done.out)
    assert (pair.query, pair.positive, pair.negatives) == ("lamp", "d7", ("tides.md",))


@needs_lrat
def test_real_trajectories(retrail: Any, tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl"
    done = retrail("mine", LRAT, "--format", "lrat", "--judge", "none", "--output", output)
    assert done.status == 0
    pairs = [LabelledPair.model_validate_json(line) for line in output.read_text().splitlines()]
    assert pairs
    assert {pair.verdict for pair in pairs} == {"relevant"}
    assert f"{len(pairs)} pairs" in done.err
    assert retrail("mine", LRAT, "--judge", "none").out == output.read_text()
