"""From steps to events: ids, documents, parts."""

import pytest

from schemas.documents import Document
from streams.events import encode, read_published
from streams.importing.hits import Documents, url_key
from streams.importing.normalise import parts
from streams.importing.readers import (
    Answered,
    Asked,
    Call,
    Calls,
    Fault,
    Thought,
    Trajectory,
    Unknown,
)
from streams.importing.report import Counts
from streams.importing.tools import ToolMap
from tests.streams.importing.logs import shape

TOOLS = ToolMap.load()


def search(query, *hits, result=None):
    found = [hit if isinstance(hit, dict) else {"id": hit} for hit in hits]
    return Calls((Call("search", {"query": query}, found if result is None else result),))


def opened(*doc_ids, result="text"):
    return Calls((Call("open", {"id": list(doc_ids)}, result),))


def written(*steps, documents=None, **fields):
    """The parts, and the counts."""
    counts = Counts()
    return list(parts(Trajectory(list(steps), **fields), TOOLS, counts, documents)), counts


def shapes(*steps, **options):
    [part], _ = written(*steps, **options)
    return shape(part.events)


@pytest.mark.parametrize(
    ("shown", "wanted", "is_hit"),
    [
        ("d:1/x", "d:1/x", True),
        ("d:1", "DocID: d:1", True),
        ("d1", "docid:d1", True),
        ("d1", "d2", False),
        ("https://example.org/lamp/", "http://Example.org:80/lamp#history", True),
        ("https://example.org", "https://example.org/", True),
        ("https://example.org/lamp?id=7:2", "https://example.org/lamp", False),
        ("https://example.org:8443/lamp", "https://example.org/lamp", False),
        ("https://example.org/Lamp", "https://example.org/lamp", False),
        ("https://example.org:port/", "https://example.org:port/", True),
    ],
)
def test_an_opened_id_is_the_hit_that_it_equals(shown, wanted, is_hit):
    [part], counts = written(search("q", "other", shown), opened(wanted))
    browse = part.events[1]
    assert (browse.doc_id == shown) == is_hit
    assert counts.opens_unsearched == (not is_hit)
    if not is_hit:
        assert browse.doc_id == wanted


def test_a_hit_with_an_id_and_a_url_may_be_opened_by_either():
    hit = {"id": "d1", "url": "https://example.org/lamp", "title": "Lamp"}
    for wanted in ("d1", "https://example.org/lamp/"):
        assert shapes(search("q", hit), opened(wanted))[1] == ("browse", "d1")


def test_an_exact_id_wins_over_another_hit_s_other_name():
    named = {"id": "d2", "url": "d1"}
    assert shapes(search("q", "d1", named), opened("d1"))[1] == ("browse", "d1")


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("It says 1871.", "c3"),
        ("Document b2 says 1871.", "b2"),
        ("See https://example.org/a1: it says 1871.", "a1"),
        ("The Harbour Lamp says 1871.", "b2"),
        ("Documents a1 and b2 say 1871.", "b2"),
        ("xb2x and b21 are no names.", "c3"),
    ],
)
def test_a_thought_after_several_documents_is_about_the_one_that_it_names(text, about):
    hits = (
        {"id": "a1", "url": "https://example.org/a1"},
        {"id": "b2", "title": "Harbour Lamp"},
        {"id": "c3"},
    )
    found = shapes(search("q", *hits), opened("a1", "b2", "c3"), Thought(text))
    assert found[-2] == ("reasoning", about, text)
    browses = [value for kind, value, *_ in found[:-1] if kind == "browse"]
    assert sorted(browses) == ["a1", "b2", "c3"]
    assert browses[-1] == about


def test_documents_opened_one_after_the_other_keep_their_order():
    found = shapes(search("q", "a1", "b2"), opened("a1"), opened("b2"), Thought("a1 says it."))
    assert [step[:2] for step in found[1:4]] == [
        ("browse", "a1"),
        ("browse", "b2"),
        ("reasoning", "b2"),
    ]


def test_a_failed_open_is_no_browse_and_the_thought_is_about_what_was_opened_before():
    found = shapes(
        search("q", "a1"), opened("a1"), opened("x", result={"error": "gone"}), Thought("1871")
    )
    assert found[1:3] == [("browse", "a1"), ("reasoning", "a1", "1871")]


def test_a_thought_after_another_step_is_about_nothing():
    between = Calls((Call("open", {"id": "a1"}, "x"), Call("python", {}, "1")))
    assert shapes(search("q", "a1"), between, Thought("1871"))[-2] == ("reasoning", "1871")


CORPUS = Documents(
    [
        Document(doc_id="lamp.md", text="Lit in 1871."),
        Document(doc_id="ferry.md", title="Ferry", text="Since 1902."),
    ]
)


@pytest.mark.parametrize(
    ("hit", "doc_id", "unknown"),
    [
        ({"id": "lamp.md", "metadata": {"source": "ferry.md"}}, "lamp.md", 0),
        ({"id": "u1", "metadata": {"doc_id": "x", "source": "lamp.md"}}, "lamp.md", 0),
        ({"id": "u1", "text": " Lit in 1871.\n"}, "lamp.md", 0),
        ({"id": "u1", "text": "Ferry\nSince 1902."}, "ferry.md", 0),
        ({"text": "Lit in 1871."}, "lamp.md", 0),
        ({"id": "u1", "text": "Lit in 1872."}, "u1", 1),
    ],
)
def test_an_id_that_is_no_document_is_looked_up(hit, doc_id, unknown):
    [part], counts = written(search("q", hit), documents=CORPUS)
    assert [found.doc_id for found in part.events[0].hits] == [doc_id]
    assert counts.not_documents == unknown
    by_own_id = hit.get("id")
    if by_own_id:
        assert shapes(search("q", hit), opened(by_own_id), documents=CORPUS)[1][1] == doc_id


def test_without_documents_ids_stay_and_nothing_is_counted():
    hit = {"id": "u1", "metadata": {"source": "lamp.md"}}
    [part], counts = written(search("q", hit, {"text": "Lit in 1871."}))
    assert [found.doc_id for found in part.events[0].hits] == ["u1"]
    assert counts.not_documents is None


def test_deleted_documents_are_none():
    corpus = Documents([Document(doc_id="lamp.md", text="Lit in 1871.")])
    corpus.remove("lamp.md")
    [part], counts = written(search("q", {"id": "u1", "text": "Lit in 1871."}), documents=corpus)
    assert (part.events[0].hits[0].doc_id, counts.not_documents) == ("u1", 1)


def test_url_keys():
    assert url_key("https://example.org/a?b=1#c") == "example.org/a?b=1"
    assert url_key("lamp.md") is url_key("ftp://x") is url_key("https://[x") is None


TURNS = (
    Asked("When?"),
    search("lamp", "a", "b"),
    opened("a"),
    Answered("1871"),
    Asked("Where?"),
    opened("b"),
    Thought("On the mole."),
    Answered("On the mole"),
    Asked("Thanks"),
    Answered("You are welcome"),
)


def test_a_question_after_an_answer_begins_a_part():
    found, _ = written(*TURNS, own_id="s", live=True)
    assert [part.events[0].trajectory_id for part in found] == ["s", "s#2", "s#3"]
    assert [shape(part.events) for part in found] == [
        [("search", "lamp", ["a", "b"]), ("browse", "a"), ("answer", "1871"), ("end",)],
        [
            ("search", "lamp", ["a", "b"]),
            ("browse", "b"),
            ("reasoning", "b", "On the mole."),
            ("answer", "On the mole"),
            ("end",),
        ],
        [("answer", "You are welcome"), ("end",)],
    ]
    assert [event.seq for event in found[1].events] == list(range(5))


@pytest.mark.parametrize("own_id", ["s", ""])
def test_earlier_parts_of_a_session_that_grew_are_as_before(own_id):
    before, _ = written(*TURNS[:4], own_id=own_id, live=True)
    after, _ = written(*TURNS, own_id=own_id, live=True)
    assert after[:1] == before
    ids = {part.events[0].trajectory_id for part in after}
    assert len(ids) == 3


def test_sessions_without_an_id_that_differ_later_have_different_later_parts():
    one, _ = written(*TURNS)
    other, _ = written(*TURNS[:4], Asked("Why?"), Answered("For the ships"))
    assert one[0] == other[0]
    assert one[1].events[0].trajectory_id != other[1].events[0].trajectory_id


def test_a_question_in_the_middle_of_the_work_begins_no_part():
    found, _ = written(Asked("When?"), search("lamp", "a"), Asked("Well?"), opened("a"))
    assert len(found) == 1


def test_a_fault_ends_what_is_read():
    [part], _ = written(search("q", "a"), Fault("line 3 is broken"), opened("a"))
    assert (shape(part.events), part.fault) == ([("search", "q", ["a"])], "line 3 is broken")
    [part], _ = written(Fault("nothing"))
    assert (part.events, part.fault) == ([], "nothing")


def test_what_breaks_the_contract_is_a_fault_there():
    [part], _ = written(search("q", "a"), opened("x" * 513), Thought("?"))
    assert shape(part.events) == [("search", "q", ["a"])]
    assert part.fault.startswith("event 1 breaks the contract")


def test_the_events_of_a_part_are_as_the_contract_reads_them():
    found, _ = written(*TURNS, Unknown("x"), search("lamp", {"id": "a", "score": 0.5}))
    events = [event for part in found for event in part.events]
    assert [read_published(encode(event)) for event in events] == [(event, 0) for event in events]


def test_long_names_and_ids_are_cut_or_hashed():
    [part], _ = written(
        Calls((Call("t" * 999, {}, ""),)),
        Unknown("u" * 999),
        own_id="i" * 999,
        agent="a" * 999,
        model="/models/m/",
    )
    assert len(part.events[0].trajectory_id) == 32
    assert [len(event.name) for event in part.events[:2]] == [256, 256]
    assert (len(part.events[0].agent.name), part.events[0].agent.model) == (128, "m")


@pytest.mark.parametrize(
    ("call", "events"),
    [
        (Call("search", {}, "x"), [("other", "search")]),
        (Call("search", {"query": " "}, "x"), [("other", "search")]),
        (Call("open", {}, "x"), []),
        (Call("juggle", {"balls": 3}, "x"), [("other", "juggle")]),
        (Call("search", '{"query": ', "bad JSON"), [("other", "search")]),
    ],
)
def test_what_is_not_understood_is_counted(call, events):
    [part], counts = written(Calls((call,)), Answered("x"))
    assert shape(part.events)[:-2] == events
    assert (counts.not_understood, counts.steps) == (1, 2)
    assert counts.examples["step"].startswith(call.tool)


def test_arguments_may_be_the_query_or_the_id_alone():
    found = shapes(Calls((Call("search", "lamp", [{"id": "a"}]),)), Calls((Call("open", "a"),)))
    assert found[:2] == [("search", "lamp", ["a"]), ("browse", "a")]


def test_counts():
    _, counts = written(*TURNS, search("r", result="nothing"), opened("z"), Unknown("x"))
    assert (counts.steps, counts.searches, counts.hits, counts.opens) == (10, 2, 2, 3)
    assert (counts.opens_unsearched, counts.reasonings, counts.answers) == (1, 1, 3)
    assert counts.examples["search"].startswith("'r' gave 'nothing'")
    assert counts.examples["open"] == "open of 'z'"
