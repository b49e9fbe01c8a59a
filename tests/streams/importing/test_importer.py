"""Whole imports: the format of each file, trajectories one by one."""

import json
import sys

import pytest

from schemas.errors import InputError
from streams.importing.importer import readers
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


EVENT = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 0,
    "occurred_at": "2026-11-01T00:00:00Z",
    "agent": {"name": "a", "model": "m"},
    "type": "answer",
}
CALL = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (EVENT, "events"),
        ({"result": [{"type": "output_text", "output": "x"}]}, "lrat"),
        ([{"role": "assistant", "content": None, "tool_calls": [CALL]}], "openai"),
        ({"output": [{"type": "function_call", "name": "x", "arguments": "{}"}]}, "openai"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "openai"),
        ([{"role": "user", "content": [{"type": "text", "text": "hello"}]}], "openai"),
        ([{"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}], "anthropic"),
        ({"uuid": "u", "sessionId": "s", "message": {"role": "user", "content": "x"}}, "anthropic"),
        ([{"role": "user", "content": "<tool_response>x</tool_response>"}], "react"),
        ({"schema_version": "ATIF-v1.6", "steps": []}, "atif"),
    ],
)
def test_the_content_decides(tmp_path, value, name):
    _, importer = imported(written(tmp_path, value))
    assert list(importer.report.formats) == [name]


def test_what_fits_none_is_refused_with_what_to_give(tmp_path):
    path = written(tmp_path, {"doc_id": "d", "text": "a corpus, no log"})
    _, importer = imported(path)
    assert importer.report.problems == [
        (
            str(path),
            "fits no format: give --format, one of events, lrat, openai, anthropic, react, atif, "
            "otlp",
        )
    ]
    assert importer.report.exit_status == 1


def test_what_fits_several_is_refused_with_the_candidates(tmp_path):
    called = {"role": "assistant", "content": "<tool_call>{}</tool_call>", "tool_calls": [CALL]}
    path = written(tmp_path, [called])
    _, importer = imported(path)
    assert importer.report.problems == [
        (str(path), "fits several formats: give --format openai or --format react")
    ]
    events, _ = imported(path, format="openai")
    assert events


def test_a_format_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="no format 'csv'; there are auto, events, lrat, openai"):
        imported(written(tmp_path, EVENT), format="csv")


def test_each_file_of_a_folder_is_read_in_its_own_format(tmp_path):
    written(tmp_path, EVENT, name="a.jsonl")
    written(tmp_path, {"result": [{"type": "output_text", "output": "x"}]}, name="b.json")
    _, importer = imported(tmp_path)
    assert {name: counts.files for name, counts in importer.report.formats.items()} == {
        "events": 1,
        "lrat": 1,
    }


NOTES = """
from streams.importing.readers import Answered, Trajectory

class Notes:
    def fits(self, value):
        return 2 if "notes" in value else 0

    def key(self, value):
        return None

    def read(self, values):
        yield Trajectory([Answered(values[0]["notes"])], own_id="n")

reader = Notes()
"""


def test_a_package_can_add_a_reader(tmp_path, monkeypatch):
    """As docs/import.md says: an entry point of an installed package."""
    packages = tmp_path / "packages"
    (packages / "notes-1.dist-info").mkdir(parents=True)
    (packages / "notes.py").write_text(NOTES)
    (packages / "notes-1.dist-info" / "METADATA").write_text("Name: notes\nVersion: 1\n")
    entry = "[retrail.importers]\nnotes = notes:reader\n"
    (packages / "notes-1.dist-info" / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(packages)
    readers.cache_clear()
    try:
        [events], importer = imported(written(tmp_path, {"notes": "1871"}))
    finally:
        readers.cache_clear()
        sys.modules.pop("notes", None)
    assert shape(events) == [("answer", "1871"), ("end",)]
    assert list(importer.report.formats) == ["notes"]


def test_opens_of_events_that_no_search_showed_are_counted(tmp_path):
    search = {"type": "search", "query": "lamp", "hits": [{"doc_id": "d1", "rank": 1}]}
    steps = [search, {"type": "browse", "doc_id": "d1"}, {"type": "browse", "doc_id": "d2"}]
    path = written(
        tmp_path,
        *[EVENT | step | {"seq": seq, "event_id": str(seq)} for seq, step in enumerate(steps)],
        EVENT | {"type": "browse", "doc_id": "d1", "trajectory_id": "u"},
    )
    _, importer = imported(path)
    counts = importer.report.of("events")
    assert (counts.opens, counts.opens_unsearched) == (3, 2)
    assert importer.report.exit_status == 0


def test_unnumbered_trajectories_are_counted_once(tmp_path):
    unnumbered = {name: value for name, value in EVENT.items() if name != "seq"}
    search = {"type": "search", "query": "lamp", "hits": [{"doc_id": "d1", "rank": 1}]}
    logs = [unnumbered | search, unnumbered | search | {"event_id": "f"}]
    _, importer = imported(written(tmp_path, *logs, unnumbered | search | {"trajectory_id": "u"}))
    assert importer.report.trajectories == 2


def test_events_that_give_no_pair_are_a_warning(tmp_path):
    search = {"type": "search", "query": "lamp", "hits": []}
    browse = {"type": "browse", "doc_id": "d1", "seq": 1, "event_id": "f"}
    _, importer = imported(written(tmp_path, EVENT | search, EVENT | browse))
    searched, opened = importer.report.warnings()
    assert "events: no search has a hit. The first: 'lamp' gave nothing" in searched
    assert "events: no opened document is a hit of a search. The first: a browse of 'd1'" in opened
    assert importer.report.exit_status == 3


def test_events_are_read_as_they_are_up_to_a_broken_one_of_their_trajectory(tmp_path):
    other = EVENT | {"trajectory_id": "u"}
    path = written(
        tmp_path,
        EVENT,
        other,
        EVENT | {"seq": -1},
        EVENT | {"seq": 2},
        other | {"seq": 1, "event_id": "f"},
        name="events.jsonl",
    )
    events, importer = imported(path)
    assert [(one.trajectory_id, one.seq) for [one] in events] == [("t", 0), ("u", 0), ("u", 1)]
    [(place, problem)] = importer.report.problems
    assert place == f"{path}:3"
    assert "seq" in problem
    assert json.loads(json.dumps(importer.report.as_json()))["formats"]["events"]["answers"] == 3
