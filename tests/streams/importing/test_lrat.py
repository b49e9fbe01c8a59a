"""Runs of LRAT, BrowseComp-Plus and AgentIR; the pairs of real ones worked out by hand."""

import json

import pytest

from schemas.settings import Settings
from tests.shared_data import LRAT, needs_lrat
from tests.streams.importing.logs import (
    HELPED,
    NEED,
    PLAN,
    REJECTED,
    imported,
    mined,
    pairs_of,
    shape,
    written,
)
from tests.streams.importing.real_pairs import EXPECTED


@needs_lrat
@pytest.mark.parametrize("name", ["1.json", "11.json", "14.json", "15.json"])
def test_real_trajectories_give_the_pairs_worked_out_by_hand(name):
    pairs = pairs_of([LRAT / name], "lrat", Settings(judge="none"))
    assert [
        (name, p.browse_seq, p.rank, p.query, p.positive, " ".join(p.negatives)) for p in pairs
    ] == [row for row in EXPECTED if row[0] == name]


@needs_lrat
def test_all_real_trajectories_are_mined_and_ended():
    pairs = list(pairs_of([LRAT], "lrat", Settings(judge="none")))
    assert len(pairs) == 14
    assert {pair.closed_by for pair in pairs} == {"end"}
    assert {(pair.verdict, pair.judge) for pair in pairs} == {("relevant", "none")}
    assert {pair.agent.model for pair in pairs} == {"Tongyi-DeepResearch-30B-A3B"}
    assert len({pair.pair_id for pair in pairs}) == 14


def run(*steps, **fields):
    return {"query_id": "7", "metadata": {"model": "/m/agent-30b"}, "result": list(steps)} | fields


def call(tool, arguments, output="", **fields):
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
    step = {"type": "tool_call", "tool_name": tool, "arguments": arguments, "output": output}
    return step | fields


def thought(text):
    return {"type": "reasoning", "tool_name": None, "arguments": None, "output": text}


def answer(text="1871"):
    return {"type": "output_text", "tool_name": None, "arguments": None, "output": text}


def listed(*doc_ids):
    return "\n".join(f"DocID:{doc_id}\n[{doc_id}]\nText of it" for doc_id in doc_ids)


def test_steps_become_events(tmp_path):
    path = written(
        tmp_path,
        run(
            thought("first"),
            call(
                "search", {"query": ["q1", "q2"]}, "found\nDocID:a:1\n text DocID:no\nDocID: b \n"
            ),
            call("visit", {"docid": "DocID:a:1"}),
            thought(["it", "helps"]),
            call("get_document", {"docid": 5}),
            call("python", {"code": "1"}),
            answer("done"),
        ),
    )
    [events], importer = imported(path)
    assert shape(events) == [
        ("reasoning", "first"),
        ("search", "q1", ["a:1", "b"]),
        ("browse", "a:1"),
        ("reasoning", "a:1", "it helps"),
        ("browse", "5"),
        ("other", "python"),
        ("answer", "done"),
        ("end",),
    ]
    assert [event.seq for event in events] == list(range(8))
    assert [hit.rank for hit in events[1].hits] == [1, 2]
    assert events[-1].outcome == "unknown"
    assert {(event.agent.name, event.agent.model) for event in events} == {("lrat", "agent-30b")}
    counts = importer.report.of("lrat")
    assert (counts.ambiguous, counts.opens, counts.opens_unsearched) == (1, 2, 1)


NEED_RUN = run(
    thought(PLAN),
    call("search", {"query": "harbour lamp year"}, listed("d1", "d2", "d3")),
    call("get_document", {"docid": "d1"}, "Tides"),
    thought(REJECTED),
    call("search", {"query": ["harbour lamp lit"]}, listed("d4", "d2")),
    call("visit", {"docid": "d2"}, "1871"),
    thought(HELPED),
    answer(),
)


def test_a_run_gives_its_pairs(tmp_path):
    assert mined(written(tmp_path, NEED_RUN)) == NEED


def test_a_browse_without_a_document_is_left_out_and_the_thought_after_it_is_about_nothing(
    tmp_path,
):
    steps = (call("visit", {}), thought("hm"), call("visit", {"docid": []}))
    [events], _ = imported(written(tmp_path, run(*steps)))
    assert shape(events) == [("reasoning", "hm"), ("end",)]


def test_the_id_follows_from_the_content_not_from_the_file(tmp_path):
    (tmp_path / "deep").mkdir()
    one, other = run(thought("a")), run(thought("b"))
    alone, _ = imported(written(tmp_path, one))
    among, _ = imported(written(tmp_path / "deep", other, one, name="all.jsonl"))
    assert among[1] == alone[0]
    assert among[0][0].trajectory_id != alone[0][0].trajectory_id
    assert alone[0][0].trajectory_id.startswith("7-")
    both, importer = imported(tmp_path)
    assert (len(both), importer.report.of("lrat").repeated) == (2, 1)
    nameless, _ = imported(written(tmp_path, one | {"query_id": None}))
    assert len(nameless[0][0].trajectory_id) == 16


def test_agentir_writes_ids_beside_the_call(tmp_path):
    """Its text has URLs, its ``visit`` takes them; ``docids`` are the documents."""
    results = "A search for 'harbour lamp year' found 2 results:\n\n## Web Results\n" + "\n\n".join(
        f"{rank}. [{title}](https://example.org/{title})\nsnippet"
        for rank, title in enumerate(("tides", "lamp"), 1)
    )
    path = written(
        tmp_path,
        {
            "agent": {"model": "Tongyi"},
            "query_id": "1",
            "result": [
                {"type": "reasoning", "output": PLAN},
                call("search", {"query": "harbour lamp year"}, results, docids=["71", "72"]),
                call("visit", {"url": ["https://example.org/lamp/"], "goal": "year"}, "1871"),
                {"type": "reasoning", "output": HELPED},
                {"type": "output_text", "output": "1871"},
            ],
        },
    )
    assert mined(path) == ["harbour lamp year | relevant 72 | 71"]


LAMP = "The document says the harbour lamp was lit in 1871, which answers the question."
BROWSECOMP = {
    "metadata": {"model": "o3"},
    "query_id": None,
    "tool_call_counts": {"search": 1, "get_document": 1},
    "status": "completed",
    "retrieved_docids": ["d1", "d2", "d3"],
    "result": [
        thought([{"type": "summary_text", "text": PLAN}]),
        call(
            "search",
            {"query": "harbour lamp first lit year"},
            json.dumps([{"docid": d, "score": 0.9, "snippet": "…"} for d in ("d1", "d2", "d3")]),
        ),
        call("get_document", {"docid": "d2"}, json.dumps({"docid": "d2", "text": "1871"})),
        thought([{"type": "summary_text", "text": LAMP}]),
        answer(),
    ],
}


def test_case_01_browsecomp_plus(tmp_path):
    path = written(tmp_path, BROWSECOMP)
    [pair] = pairs_of([path], "auto", Settings())
    assert (pair.query, pair.positive, pair.negatives) == (
        "harbour lamp first lit year",
        "d2",
        ("d1", "d3"),
    )
    assert pair.reasoning_tokens == 16
    [events], _ = imported(path)
    assert events[1].hits[0].score == 0.9


def test_case_02_several_queries_and_several_documents(tmp_path):
    output = (
        "A search for 'harbour lamp year' found 2 results:\nDocID: d1\nText: tide tables\n"
        "DocID: d2\nText: lamp 1871\n=======\n"
        "A search for 'harbour master 1871' found 2 results:\nDocID: m1\nText: masters\n"
        "DocID: m2\nText: master in 1871"
    )
    both = "Both documents give the year 1871 and the name of the harbour master."
    path = written(
        tmp_path,
        run(
            call("search", {"query": ["harbour lamp year", "harbour master 1871"]}, output),
            call("visit", {"docid": ["d2", "m2"], "goal": "year and name"}, "evidence"),
            thought(both),
            answer(),
        ),
    )
    [events], _ = imported(path)
    assert shape(events)[:4] == [
        ("search", "harbour lamp year", ["d1", "d2"]),
        ("search", "harbour master 1871", ["m1", "m2"]),
        ("browse", "d2"),
        ("browse", "m2"),
    ]
    assert mined(path) == ["harbour master 1871 | relevant m2 | m1 d1"]
    assert mined(path, judge="none") == [
        "harbour master 1871 | relevant d2 | m1 d1",
        "harbour master 1871 | relevant m2 | m1 d1",
    ]


def test_case_03_visit_by_url(tmp_path):
    output = (
        "A web search for 'harbour lamp year' found 2 results:\n\n## Web Results\n"
        "1. [Tides](https://example.org/tides)\n\n2. [Lamp](https://example.org/lamp/)"
    )
    path = written(
        tmp_path,
        run(
            call("search", {"query": ["harbour lamp year"]}, output),
            call("visit", {"url": ["https://example.org/lamp#history"], "goal": "year"}, "1871"),
            thought(HELPED),
            answer(),
        ),
    )
    assert mined(path) == [
        "harbour lamp year | relevant https://example.org/lamp/ | https://example.org/tides"
    ]


def test_case_04_ids_that_are_urls(tmp_path):
    lamp, old = "https://example.org/lamp/", "https://example.org/lamp?id=7:2"
    output = listed("https://example.org/tides", lamp, old)
    path = written(
        tmp_path,
        run(
            call("search", {"query": "harbour lamp year"}, output),
            call("visit", {"docid": lamp}, "1871"),
            thought(HELPED),
            answer(),
        ),
    )
    assert mined(path) == [f"harbour lamp year | relevant {lamp} | https://example.org/tides {old}"]


def failing(*last):
    return run(
        thought(None),
        call("search", {"query": "lamp"}, "DocID: d1\nText: a\nDocID: d2\nText: b"),
        call("search", {"query": "master"}, None),
        call("get_document", {"docid": "d2"}, None),
        call("get_document", {"docid": 2}, '{"error":"not found"}'),
        thought("The document gives the year directly: 1871."),
        *last,
        query_id=5,
    )


def test_case_05_the_last_call_is_cut_off(tmp_path):
    """Its other steps are used, without an end; the other file is read; both are counted."""
    written(tmp_path, BROWSECOMP, name="a.json")
    broken = written(tmp_path, failing(call("search", '{"query":"harbour')), name="b.json")
    assert mined(tmp_path) == [
        "harbour lamp first lit year | relevant d2 | d1 d3",
        "lamp | relevant d2 | d1",
    ]
    [_, events], importer = imported(tmp_path)
    assert events[-1].text == "The document gives the year directly: 1871."
    report = importer.report
    assert (report.incomplete, report.left_out, report.exit_status) == (1, 0, 1)
    [(place, problem)] = report.problems
    assert place == str(broken)
    assert "step 6 of 7: the arguments of 'search' break off" in problem


def test_case_05b_a_search_that_failed_and_an_open_that_failed(tmp_path):
    path = written(tmp_path, failing())
    assert mined(path) == mined(path, judge="none") == ["lamp | relevant d2 | d1"]
    _, importer = imported(path)
    assert importer.report.of("lrat").opens_failed == 1


def test_case_06_byte_order_mark(tmp_path):
    path = written(tmp_path, BROWSECOMP)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert mined(path) == ["harbour lamp first lit year | relevant d2 | d1 d3"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "is not JSON"),
        (b"[]", "fits no format"),
        (b"", "is empty"),
        (b"a,b\n1,2\n", "it begins with neither"),
        (json.dumps(run(call("search", "{", ""))).encode(), "the arguments of 'search' break off"),
        (json.dumps(run(call("visit", {"docid": "x" * 600}))).encode(), "event 0 breaks"),
    ],
)
def test_what_cannot_be_read_at_all_is_named_and_left_out(tmp_path, content, complaint):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    events, importer = imported(path)
    assert events == []
    [(place, problem)] = importer.report.problems
    assert place.startswith(str(path))
    assert complaint in problem
    assert (importer.report.left_out, importer.report.incomplete) == (1, 0)


def test_steps_of_unknown_form_are_counted(tmp_path):
    path = written(tmp_path, run(3, {"type": "dance"}, answer()))
    [events], importer = imported(path)
    assert shape(events) == [
        ("other", "not an object"),
        ("other", "dance"),
        ("answer", "1871"),
        ("end",),
    ]
    assert importer.report.of("lrat").not_understood == 2
    assert importer.report.exit_status == 3
