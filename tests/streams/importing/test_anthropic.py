"""Anthropic's messages and the sessions of coding agents, to exact pairs."""

import json

import pytest

from tests.streams.importing.logs import HELPED, NEED, PLAN, REJECTED, imported, mined, written


def text(content):
    return {"type": "text", "text": content}


def thinks(content):
    return {"type": "thinking", "thinking": content, "signature": "…"}


def uses(call_id, name, **given):
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def runs(call_id, name, **given):
    """A call that Anthropic's server runs."""
    return uses(call_id, name, **given) | {"type": "server_tool_use"}


def result(call_id, content, **fields):
    block = {"type": "tool_result", "tool_use_id": call_id, "content": content}
    return {"role": "user", "content": [block | fields]}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def found(*doc_ids):
    return json.dumps([{"doc_id": doc_id, "title": doc_id} for doc_id in doc_ids])


MESSAGES = [
    {"role": "user", "content": "When was the harbour lamp first lit?"},
    assistant(thinks(PLAN), text("I search."), uses("t1", "search", query="harbour lamp year")),
    result("t1", [text(found("d1", "d2", "d3"))]),
    assistant(uses("t2", "mcp__library__get_document", doc_id="d1")),
    result("t2", [text("Tides")]),
    assistant(text(REJECTED), uses("t3", "search", query="harbour lamp lit")),
    result("t3", found("d4", "d2")),
    assistant(uses("t4", "fetch", id="d9")),
    result("t4", "no such document", is_error=True),
    assistant(uses("t5", "fetch", id="d2")),
    result("t5", "Lit in 1871."),
    assistant(thinks(HELPED), text("1871")),
]


@pytest.mark.parametrize(
    "log",
    [
        [MESSAGES],
        [{"model": "claude-x", "system": "…", "messages": MESSAGES}],
        [
            {
                "request": {"model": "claude-x", "messages": MESSAGES[:-1]},
                "response": {"id": "msg_1", "type": "message", **MESSAGES[-1]},
            }
        ],
    ],
    ids=["a list", "an object", "request and response"],
)
def test_messages(tmp_path, log):
    path = written(tmp_path, *log)
    assert mined(path) == NEED
    _, importer = imported(path)
    assert list(importer.report.formats) == ["anthropic"]
    assert importer.report.of("anthropic").opens_failed == 1


def session(messages, session_id="s-1", **fields):
    """Lines of a session; as coding agents do, each block is a line of its own."""
    parent = None
    for message in messages:
        content = message["content"]
        for block in content if isinstance(content, list) else [content]:
            own = f"{fields.get('agentId', '')}{session_id}-{parent}-{len(str(block))}"[-80:]
            line = {
                "type": message["role"],
                "uuid": own,
                "parentUuid": parent,
                "sessionId": session_id,
                "timestamp": "2026-11-01T10:00:00.000Z",
                "message": message | {"content": [block] if isinstance(content, list) else block},
            }
            yield line | fields
            parent = own


SNAPSHOT = {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}}
SUMMARY = {"type": "summary", "summary": "The lamp", "leafUuid": "u"}


def test_a_session_of_a_coding_agent(tmp_path):
    lines = list(session(MESSAGES))
    path = written(tmp_path, SUMMARY, *lines[:3], SNAPSHOT, *lines[3:], name="s-1.jsonl")
    assert mined(path) == NEED
    [events], importer = imported(path)
    assert list(importer.report.formats) == ["anthropic"]
    assert {event.trajectory_id for event in events} == {"s-1"}
    assert importer.report.exit_status == 0


def test_web_tools_of_a_coding_agent(tmp_path):
    urls = [f"https://example.org/{name}" for name in ("tides", "lamp")]
    links = json.dumps([{"title": url[-4:], "url": url} for url in urls], separators=(",", ":"))
    answered = f'Web search results for query: "lamp"\n\nLinks: {links}\n\nThe lamp was lit.'
    messages = [
        {"role": "user", "content": "When?"},
        assistant(uses("t1", "WebSearch", query="lamp")),
        result("t1", answered),
        assistant(uses("t2", "WebFetch", url="http://example.org/lamp/", prompt="year")),
        result("t2", "1871"),
        assistant(uses("t3", "Bash", command="ls")),
        result("t3", ""),
        assistant(text("1871")),
    ]
    messages[5]["content"].insert(0, text(HELPED))
    path = written(tmp_path, *session(messages), name="s.jsonl")
    assert mined(path) == ["lamp | relevant https://example.org/lamp | https://example.org/tides"]


def test_a_subagent_is_a_trajectory_of_its_own(tmp_path):
    main = [MESSAGES[0], assistant(uses("a1", "Task", prompt="find it")), result("a1", "1871")]
    lines = list(session([*main, assistant(text("1871"))]))
    sub = list(session(MESSAGES, isSidechain=True, agentId="sub"))
    for line in sub[1:]:
        del line["agentId"]
    path = written(tmp_path, *lines[:2], *sub, *lines[2:], name="s.jsonl")
    events, _ = imported(path)
    assert [one[0].trajectory_id for one in events] == ["s-1", "s-1/sub"]
    assert mined(path) == NEED


def test_a_session_whose_last_line_is_cut_off_gives_what_is_before_it(tmp_path):
    path = written(tmp_path, *session(MESSAGES), name="s.jsonl")
    path.write_bytes(path.read_bytes()[:-40])
    events, importer = imported(path)
    assert importer.report.incomplete == 1
    assert "is not JSON" in importer.report.problems[0][1]
    assert type(events[0][-1]).__name__ == "Reasoning"
    assert mined(path) == NEED


def test_the_tools_of_anthropic_itself(tmp_path):
    """Calls and results are blocks of one message."""
    searched = [
        {"type": "web_search_result", "url": f"https://example.org/{name}", "title": name}
        for name in ("tides", "lamp")
    ]
    page = {"type": "web_fetch_result", "url": "https://example.org/lamp", "content": {}}
    log = [
        {"role": "user", "content": "When?"},
        assistant(
            text("I search."),
            runs("s1", "web_search", query="lamp"),
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": searched},
            runs("s2", "web_fetch", url="https://example.org/lamp"),
            {"type": "web_fetch_tool_result", "tool_use_id": "s2", "content": page},
            text(HELPED),
            runs("s3", "web_fetch", url="x"),
            {
                "type": "web_fetch_tool_result",
                "tool_use_id": "s3",
                "content": {"type": "web_fetch_tool_result_error", "error_code": "url_not_allowed"},
            },
            text("1871"),
        ),
    ]  # fmt: skip
    path = written(tmp_path, log)
    assert mined(path) == ["lamp | relevant https://example.org/lamp | https://example.org/tides"]
