"""OpenAI's chat messages and Responses items, to exact pairs."""

import json

import pytest

from tests.streams.importing.logs import HELPED, NEED, PLAN, REJECTED, imported, mined, written

QUESTION = {"role": "user", "content": "When was the harbour lamp first lit?"}


def asks(call_id, name, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def says(content, *calls, **fields):
    calls_made = {"tool_calls": list(calls)} if calls else {}
    return {"role": "assistant", "content": content} | calls_made | fields


def gives(call_id, content):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def results(*doc_ids):
    return json.dumps({"results": [{"id": doc_id, "text": f"of {doc_id}"} for doc_id in doc_ids]})


CHAT = [
    {"role": "system", "content": "Use the tools."},
    QUESTION,
    says(None, asks("c1", "web_search", query="harbour lamp year"), reasoning_content=PLAN),
    gives("c1", results("d1", "d2", "d3")),
    says("", asks("c2", "open", id="d1")),
    gives("c2", "Tides"),
    says(REJECTED, asks("c3", "functions.search", query="harbour lamp lit")),
    gives("c3", [{"type": "text", "text": results("d4", "d2")}]),
    says(None, asks("c4", "fetch", doc_id="d2")),
    gives("c4", "Lit in 1871."),
    says(f"<think>\n{HELPED}\n</think>\n\n1871"),
]


@pytest.mark.parametrize(
    "log",
    [
        [CHAT],
        [{"messages": CHAT, "model": "gpt-5"}],
        CHAT,
        [
            {
                "request": {"model": "gpt-5", "messages": CHAT[:-1]},
                "response": {"id": "chatcmpl-1", "choices": [{"index": 0, "message": CHAT[-1]}]},
            }
        ],
    ],
    ids=["a list", "an object", "a message a line", "request and response"],
)
def test_chat_messages(tmp_path, log):
    path = written(tmp_path, *log, name="log.jsonl")
    assert mined(path) == NEED
    [events], importer = imported(path)
    assert list(importer.report.formats) == ["openai"]
    assert importer.report.exit_status == 0
    assert events[-2].text == "1871"


def reasons(text):
    return {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": text}]}


def calls(call_id, name, **arguments):
    fields = {"call_id": call_id, "name": name, "arguments": json.dumps(arguments)}
    return {"type": "function_call", "id": f"fc_{call_id}", "status": "completed"} | fields


def outputs(call_id, output):
    return {"type": "function_call_output", "call_id": call_id, "output": output}


ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "When?"}]},
    reasons(PLAN),
    calls("c1", "search", query="harbour lamp year"),
    outputs("c1", json.dumps([{"docid": d, "score": 1.5} for d in ("d1", "d2", "d3")])),
    calls("c2", "get_document", docid="d1"),
    outputs("c2", "Tides"),
    reasons(REJECTED),
    calls("c3", "search", query="harbour lamp lit"),
    outputs("c3", json.dumps([{"docid": d} for d in ("d4", "d2")])),
    calls("c4", "get_document", docid="d2"),
    outputs("c4", "Lit in 1871."),
    reasons(HELPED),
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "1871", "annotations": []}],
    },
]


@pytest.mark.parametrize(
    "log",
    [
        [ITEMS],
        [
            {
                "object": "response",
                "id": "resp_1",
                "model": "o3",
                "input": ITEMS[:1],
                "output": ITEMS[1:],
            }
        ],
        ITEMS,
        [{"request": {"model": "o3", "input": ITEMS[:1]}, "response": {"output": ITEMS[1:]}}],
    ],
    ids=["a list", "a response with its input", "an item a line", "request and response"],
)
def test_responses_items(tmp_path, log):
    path = written(tmp_path, *log, name="log.jsonl")
    assert mined(path) == NEED
    _, importer = imported(path)
    assert list(importer.report.formats) == ["openai"]


def test_the_tools_of_openai_itself(tmp_path):
    """Web and file search run on its side; sources of a search are there if they were asked for."""
    sources = [{"type": "url", "url": f"https://example.org/{name}"} for name in ("tides", "lamp")]
    web = [
        reasons(PLAN),
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "harbour lamp year", "sources": sources},
        },
        {
            "type": "web_search_call",
            "id": "ws_2",
            "action": {"type": "open_page", "url": "https://example.org/lamp#top"},
        },
        reasons(HELPED),
    ]
    files = [
        {
            "type": "file_search_call",
            "id": "fs_1",
            "queries": ["lamp"],
            "results": [{"file_id": "file-1", "filename": "lamp.pdf", "score": 0.7, "text": "…"}],
        },
        {"type": "mcp_call", "id": "m_1", "server_label": "s", "name": "fetch",
         "arguments": '{"id": "file-1"}', "output": "Lit in 1871.", "error": None},
        reasons(HELPED),
    ]  # fmt: skip
    path = written(tmp_path, {"output": web}, {"output": files}, name="log.jsonl")
    assert mined(path) == [
        "harbour lamp year | relevant https://example.org/lamp | https://example.org/tides",
        "lamp | relevant file-1 | ",
    ]


def test_calls_made_at_once_with_ids_that_come_again(tmp_path):
    """Some servers number the calls of each message from 0 again."""
    log = [
        QUESTION,
        says(None, asks("call_0", "search", query="a"), asks("call_1", "search", query="b")),
        gives("call_1", results("b1")),
        gives("call_0", results("a1", "a2")),
        says(None, asks("call_0", "open", id="a1"), asks("call_1", "open", id="b1")),
        gives("call_0", "A"),
        gives("call_1", "B"),
        says(None, asks("call_0", "search", query="c"), reasoning="Document a1 gives the year."),
        gives("call_0", results("c1")),
        says("1871"),
    ]
    path = written(tmp_path, log)
    [events], _ = imported(path)
    hits = {
        event.query: [hit.doc_id for hit in event.hits]
        for event in events
        if hasattr(event, "hits")
    }
    assert hits == {"a": ["a1", "a2"], "b": ["b1"], "c": ["c1"]}
    assert mined(path) == ["b | relevant a1 | a2"]


def test_a_session_gives_a_part_for_each_question_and_only_new_parts_when_it_grew(tmp_path):
    """The second part opens a hit of the first part's search, so it repeats that search."""
    first = {"conversation_id": "c-7", "messages": CHAT}
    more = [
        {"role": "user", "content": "And the ferries?"},
        says(None, asks("c9", "open", id="d4")),
        gives("c9", "Ferries since 1902."),
        says(None, asks("c10", "python", code="1902"), reasoning_content=HELPED),
        gives("c10", "1902"),
        says("1902"),
    ]
    before, _ = imported(written(tmp_path, first))
    after, importer = imported(
        written(tmp_path, first, first | {"messages": CHAT + more}, name="later.jsonl")
    )
    assert [events[0].trajectory_id for events in after] == ["c-7", "c-7#2"]
    assert after[0] == before[0]
    assert importer.report.of("openai").repeated == 1
    assert [event.seq for event in after[1]] == list(range(6))
    assert (after[1][0].query, after[1][1].doc_id) == ("harbour lamp lit", "d4")
    assert mined(tmp_path / "later.jsonl") == [*NEED, "harbour lamp lit | relevant d4 | d2"]


def test_a_session_that_goes_on_has_no_end(tmp_path):
    [events], _ = imported(written(tmp_path, {"thread_id": "t", "messages": CHAT[:-1]}))
    assert type(events[-1]).__name__ == "Browse"
    [events], _ = imported(written(tmp_path, {"thread_id": "t", "messages": CHAT}))
    assert type(events[-1]).__name__ == "End"


def test_a_call_that_is_no_json_is_a_step_if_the_agent_went_on_and_else_a_fault(tmp_path):
    broken = says(None, asks("c1", "search") | {"function": {"name": "search", "arguments": '{"q'}})
    path = written(tmp_path, [QUESTION, broken, gives("c1", "Invalid JSON"), *CHAT[2:]])
    assert mined(path) == NEED
    _, importer = imported(path)
    assert importer.report.of("openai").not_understood == 1
    path = written(tmp_path, [*CHAT[:-1], broken])
    assert mined(path) == NEED[:1]
    _, importer = imported(path)
    assert importer.report.incomplete == 1
