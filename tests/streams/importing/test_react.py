"""Chats whose tools are called in the text, to exact pairs."""

import json

import pytest

from tests.streams.importing.logs import HELPED, NEED, PLAN, REJECTED, imported, mined, written


def says(thought, name, **arguments):
    call = json.dumps({"name": name, "arguments": arguments})
    return {
        "role": "assistant",
        "content": f"<think>\n{thought}\n</think>\n<tool_call>\n{call}\n</tool_call>",
    }


def gives(text):
    return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}


def results(query, *names):
    listed = "\n\n".join(
        f"{rank}. [{name}](https://example.org/{name})\nDate published: 2020\nSource: web\n\nText"
        for rank, name in enumerate(names, 1)
    )
    return f"A Google search for '{query}' found {len(names)} results:\n\n## Web Results\n{listed}"


def visited(name):
    return f"The useful information in https://example.org/{name} for user goal year as follows:"


URL = "https://example.org/"
PAIRS = [pair.replace(" d", f" {URL}d") for pair in NEED]  # The same need; here the ids are URLs.

CHAT = [
    {"role": "system", "content": "<tools>…</tools> call as <tool_call>{…}</tool_call>"},
    {"role": "user", "content": "When was the harbour lamp first lit?"},
    says(PLAN, "search", query=["harbour lamp year"]),
    gives(results("harbour lamp year", "d1", "d2", "d3")),
    says("", "visit", url=[f"{URL}d1"], goal="year"),
    gives(visited("d1")),
    says(REJECTED, "search", query=["harbour lamp lit"]),
    gives(results("harbour lamp lit", "d4", "d2")),
    says("", "visit", url=f"{URL}d2/", goal="year"),
    gives(visited("d2")),
    {
        "role": "assistant",
        "content": f"<think>\n{HELPED}\n</think>\n<answer>\n1871\n</answer>",
    },
]


def shared(messages):
    speakers = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": speakers[one["role"]], "value": one["content"]} for one in messages]


@pytest.mark.parametrize(
    "log",
    [
        [{"question": "When?", "messages": CHAT, "prediction": "1871", "termination": "answer"}],
        [{"conversations": shared(CHAT)}],
        [CHAT],
    ],
    ids=["Tongyi DeepResearch", "WebDancer", "a list"],
)
def test_chats(tmp_path, log):
    path = written(tmp_path, *log)
    assert mined(path) == PAIRS
    [events], importer = imported(path)
    assert list(importer.report.formats) == ["react"]
    assert importer.report.exit_status == 0
    assert events[-2].text == "1871"


def test_several_queries_of_which_one_finds_nothing(tmp_path):
    """Each query has its heading; what stands under it are its hits."""
    nothing = "No results found for 'sea lamp'. Try with a more general query."
    answered = f"{nothing}\n=======\n{results('harbour lamp', 'd1', 'd2')}"
    log = [
        says(PLAN, "search", query=["sea lamp", "harbour lamp"]),
        gives(answered),
        says("", "visit", url=[f"{URL}d2"], goal="year"),
        gives(visited("d2")),
        {"role": "assistant", "content": f"<think>{HELPED}</think><answer>1871</answer>"},
    ]
    path = written(tmp_path, log)
    assert mined(path) == [f"harbour lamp | relevant {URL}d2 | {URL}d1"]
    _, importer = imported(path)
    assert importer.report.of("react").ambiguous == 0


def test_python_calls_have_their_code_after_the_json(tmp_path):
    call = '{"name": "PythonInterpreter", "arguments": {}}\n<code>\n1\n</code>'
    content = f"<think>I count.</think>\n<tool_call>\n{call}\n</tool_call>"
    python = {"role": "assistant", "content": content}
    path = written(tmp_path, [*CHAT[:2], python, gives("1"), *CHAT[2:]])
    assert mined(path) == PAIRS
    _, importer = imported(path)
    assert importer.report.of("react").not_understood == 0


def test_a_call_that_is_cut_off_ends_what_can_be_read(tmp_path):
    cut = {"role": "assistant", "content": f'<think>{REJECTED}</think>\n<tool_call>\n{{"name": "se'}
    path = written(tmp_path, [*CHAT[:6], cut])
    assert mined(path) == PAIRS[:1]
    [events], importer = imported(path)
    assert importer.report.incomplete == 1
    assert type(events[-1]).__name__ == "Reasoning"


def test_a_thought_without_its_opening_tag(tmp_path):
    """Templates of Qwen put it into the prompt, so it is not in what the model wrote."""
    chat = [
        one | {"content": one["content"].removeprefix("<think>")}
        if one["role"] == "assistant"
        else one
        for one in CHAT
    ]
    assert mined(written(tmp_path, chat)) == PAIRS
