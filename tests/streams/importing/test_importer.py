"""Whole imports: the unit is a trajectory."""

import json

import pytest

from schemas.errors import InputError
from tests.streams.importing.logs import imported, mined, shape, written


def run(query, *opened, output="DocID:a\nDocID:b"):
    call = {"type": "tool_call", "tool_name": "search", "output": output}
    steps = [call | {"arguments": json.dumps({"query": query})}]
    for doc_id in opened:
        arguments = json.dumps({"docid": doc_id})
        steps.append({"type": "tool_call", "tool_name": "visit", "arguments": arguments})
    return {"query_id": query, "result": steps}


def test_a_broken_line_does_not_stop_the_others(tmp_path):
    path = written(tmp_path, run("p", "a"), run("q", "b"), name="runs.jsonl")
    path.write_text(path.read_text().replace("\n", '\n{"result": [\n{"query_id": 1}\n', 1))
    assert mined(path, judge="none") == ["p | relevant a | b", "q | relevant b | a"]
    _, importer = imported(path)
    (first, broken), (second, foreign) = importer.report.problems
    assert (first, second) == (f"{path}:2", f"{path}:3")
    assert broken.startswith("is not JSON")
    assert foreign == "has no list of steps 'result'"
    assert importer.report.exit_status == 1
    assert importer.report.trajectories == 2


def test_strict_raises_for_the_first_that_is_broken(tmp_path):
    path = written(tmp_path, run("p", "a"), run("q", "x" * 600), name="runs.jsonl")
    with pytest.raises(InputError, match=r"runs\.jsonl:2: event 1 breaks the contract"):
        imported(path, strict=True)


def test_a_trajectory_that_was_read_before_is_left_out(tmp_path):
    written(tmp_path, run("p", "a"), run("p", "b"), run("p", "a"), name="runs.jsonl")
    events, importer = imported(tmp_path)
    assert [one[1].doc_id for one in events] == ["a", "b"]
    assert importer.report.of("lrat").repeated == 1


def test_an_unfinished_trajectory_is_closed_before_the_next(tmp_path):
    """Nothing stays open, so memory is that of one trajectory."""
    cut = run("p", "a")
    cut["result"].append({"type": "tool_call", "tool_name": "visit", "arguments": "{"})
    path = written(tmp_path, cut, run("q", "b"), name="runs.jsonl")
    [first, _], _ = imported(path)
    assert shape(first)[-1] == ("browse", "a")
    assert mined(path, judge="none") == ["p | relevant a | b", "q | relevant b | a"]


def test_progress(tmp_path):
    path = written(tmp_path, run("p", "a"))
    read = []
    imported(path, on_bytes=read.append)
    assert sum(read) == path.stat().st_size
