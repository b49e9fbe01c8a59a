"""Import of LRAT files, and the pairs of real ones worked out by hand."""

import json

import pytest

from schemas.errors import InputError
from schemas.settings import Settings
from streams.importing.lrat import events_of_file
from streams.importing.offline import mine_paths
from tests.shared_data import LRAT, needs_lrat

# Worked out by hand from the files: the searches' DocID lines from the browse backwards to the
# last relevant browse, without the positive and without doubles. (file, browse_seq, rank, query,
# positive, negatives)
EXPECTED = [
    (
        "1.json",
        3,
        1,
        "Czech historian born in Valašské Klobouky Ladislav Zdeněk brother",
        "9358159",
        "2690620 5992926 1675639 5601468 3896914 5406386 1888799 7177735 10121870",
    ),
    (
        "11.json",
        7,
        2,
        "Genting Highlands casino theme park",
        "817793",
        "817795 817794 3628727 3095462 1614789 265819 1582361 3594471 10278648 "
        "8027957 3708928 2939459 2939458 2909990 9892872 10301476 809289 "
        "1582362 1582359 2781055 6497358 1582360 1582363 4808454 6497359",
    ),
    (
        "14.json",
        3,
        2,
        "Donald Trump paid damages misuse of charity funds amount",
        "8513781",
        "8513784 9318018 8513782 8513779 8408192 8513787 8513778 2579753 8513788",
    ),
    (
        "14.json",
        7,
        8,
        "Trump charity foundation $2 million damages November 2019 settlement",
        "8577606",
        "1648545 8513778 8513781 2579753 8513792 9235199 9318018 3197672 3197673",
    ),
    (
        "14.json",
        13,
        2,
        "New York attorney general lawsuit Trump Foundation settlement November 2019 "
        "$2 million damages",
        "8513792",
        "9318018 1648545 1521716 8513778 8548971 7649800 2579753 2967811 8408190 "
        "1196510 6200725 9120524 8513781 2289761 8513788 1329962",
    ),
    (
        "15.json",
        3,
        2,
        "Mexican telecommunications company owned by Carlos Slim America Movil telephone "
        "internet services since 1981",
        "2374680",
        "879770 2426694 3640551 8494251 2539105 74546 8154829 959138 959140",
    ),
    (
        "15.json",
        7,
        1,
        "Telnor America Movil owned",
        "2374680",
        "7307682 7307683 1605390 3098646 879771 1571664 3524583 2426695 8154829",
    ),
    (
        "15.json",
        11,
        2,
        '"since 1981" "telephone" "internet" Mexico',
        "2374675",
        "229790 74546 879770 1937267 107121 228337 6850901 1426863 3711596",
    ),
]


@needs_lrat
@pytest.mark.parametrize("name", ["1.json", "11.json", "14.json", "15.json"])
def test_real_trajectories_give_the_pairs_worked_out_by_hand(name):
    pairs = mine_paths([LRAT / name], "lrat", Settings(judge="none"))
    assert [
        (name, p.browse_seq, p.rank, p.query, p.positive, " ".join(p.negatives)) for p in pairs
    ] == [row for row in EXPECTED if row[0] == name]


@needs_lrat
def test_all_real_trajectories_are_mined_and_ended():
    pairs = list(mine_paths([LRAT], "lrat", Settings(judge="none")))
    assert len(pairs) == 14
    assert {pair.closed_by for pair in pairs} == {"end"}
    assert {(pair.verdict, pair.judge) for pair in pairs} == {("relevant", "none")}
    assert {pair.agent.model for pair in pairs} == {"Tongyi-DeepResearch-30B-A3B"}
    assert len({pair.pair_id for pair in pairs}) == 14


def trajectory(*steps, **fields):
    return {"query_id": "7", "metadata": {"model": "/m/agent-30b"}, "result": list(steps)} | fields


def call(tool, arguments, output=""):
    return {
        "type": "tool_call",
        "tool_name": tool,
        "arguments": json.dumps(arguments),
        "output": output,
    }


def thought(text):
    return {"type": "reasoning", "tool_name": None, "arguments": None, "output": text}


@pytest.fixture
def imported(tmp_path):
    def write(*steps, **fields):
        path = tmp_path / "one.json"
        path.write_text(json.dumps(trajectory(*steps, **fields)))
        return events_of_file(path)

    return write


def test_steps_become_events(imported):
    events = imported(
        thought("first"),
        call("search", {"query": ["q1", "q2"]}, "found\nDocID:a:1\n text DocID:no\nDocID: b \n"),
        call("visit", {"docid": ["x:9", "y"]}),
        thought(["it", "helps"]),
        call("get_document", {"docid": 5}),
        call("python", {"code": "1"}),
        {"type": "output_text", "output": "done"},
    )
    assert [event.type for event in events] == [
        *("reasoning", "search", "browse", "reasoning", "browse", "other", "answer", "end")
    ]
    assert [event.seq for event in events] == list(range(8))
    search = events[1]
    assert (search.query, [(hit.doc_id, hit.rank) for hit in search.hits]) == (
        "q1",
        [("a:1", 1), ("b", 2)],
    )
    assert (events[2].doc_id, events[4].doc_id) == ("9", "5")
    assert [(e.text, e.about) for e in (events[0], events[3])] == [
        ("first", None),
        ("it helps", "9"),
    ]
    assert events[5].name == "python"
    assert events[-1].outcome == "unknown"
    assert {event.agent.model for event in events} == {"agent-30b"}


def test_a_browse_without_a_document_is_left_out_and_the_thought_after_it_is_about_nothing(
    imported,
):
    events = imported(call("visit", {}), thought("hm"), call("visit", {"docid": []}))
    assert [(event.type, getattr(event, "about", None)) for event in events] == [
        ("reasoning", None),
        ("end", None),
    ]


def test_ids_follow_from_the_bytes_of_the_file(imported):
    first, second = imported(thought("a")), imported(thought("a"))
    assert first == second
    assert first[0].trajectory_id.startswith("7-")
    assert len(first[0].trajectory_id) == len("7-") + 12
    assert imported(thought("b"))[0].trajectory_id != first[0].trajectory_id


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "cannot be read as JSON"),
        (b"[]", "no list of steps"),
        (json.dumps(trajectory(3)).encode(), "step 0 is not an object"),
        (
            json.dumps(trajectory(call("search", {}) | {"arguments": "{"})).encode(),
            "step 0: its arguments are not JSON",
        ),
        (json.dumps(trajectory(call("visit", {"docid": "x" * 600}))).encode(), "event 0"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.json") as error:
        events_of_file(path)
    assert complaint in str(error.value)
