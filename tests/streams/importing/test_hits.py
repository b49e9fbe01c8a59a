"""Hits in results, of one query and of several."""

import json

import pytest

from streams.importing.hits import answers
from streams.importing.readers import Call
from streams.importing.tools import SearchTool, ToolMap

SEARCH = ToolMap.load().find("search")
assert isinstance(SEARCH, SearchTool)


def found(result, *queries, doc_ids=None, failed=False):
    """Ids by query, and whether it is ambiguous."""
    call = Call("search", {}, result, doc_ids, failed)
    by_query, ambiguous = answers(list(queries or ("q",)), call, SEARCH)
    return {query: [hit.doc_id for hit in hits] for query, hits in by_query}, ambiguous


def docs(*doc_ids, key="id"):
    return [{key: doc_id} for doc_id in doc_ids]


@pytest.mark.parametrize(
    "result",
    [
        docs("a", "b"),
        json.dumps(docs("a", "b"), indent=2),
        {"results": docs("a", "b", key="docid")},
        {"took": 3, "hits": {"hits": docs("a", "b", key="_id")}},
        {"organic": docs("a", "b", key="link")},
        ["a", "b"],
        [{"page_content": "…", "metadata": {"source": name}} for name in "ab"],
        "DocID:a\nText\nDocID: b\r\nText with DocID:c",
        "1. [Title](a)\ntext\n\n2. [Other [one]](b)\n",
        "- [Title](a)\n- [Title](b)",
        "Found:\nURL: http://a\nhttp://c is not one\nURL: http://b".replace(
            "http://c", "see http://c"
        ),
        'Cut off JSON: [{"docid": "a", "text": "…"}, {"docid": "b", "te',
    ],
    ids=repr,
)
def test_hits_of_one_query(result):
    (ids,), ambiguous = list(found(result)[0].values()), found(result)[1]
    assert [doc_id.removeprefix("http://") for doc_id in ids] == ["a", "b"]
    assert not ambiguous


@pytest.mark.parametrize("result", [None, "", "Nothing was found.", [], {}, {"error": "down"}, 7])
def test_no_hits(result):
    assert found(result) == ({"q": []}, False)


def test_a_failed_search_has_no_hits_whatever_its_message_says():
    assert found("URL: https://example.org/status", failed=True) == ({"q": []}, False)


def test_urls_keep_their_brackets():
    result = "1. [Lamp](https://en.example.org/wiki/Lamp_(film))\ntext"
    assert found(result) == ({"q": ["https://en.example.org/wiki/Lamp_(film)"]}, False)


def test_ids_beside_the_call_win_and_the_result_names_them():
    call = Call("search", {}, "1. [T](http://x/1)\n\n2. [U](http://x/2)", ("71", "72"))
    [(_, hits)], _ = answers(["q"], call, SEARCH)
    assert [(hit.doc_id, hit.others, hit.title) for hit in hits] == [
        ("71", ("http://x/1",), "T"),
        ("72", ("http://x/2",), "U"),
    ]
    assert found("no list", doc_ids=("71",)) == ({"q": ["71"]}, False)
    assert found("DocID:a", doc_ids=()) == ({"q": []}, False)


HEADED = "A search for 'lamp year' found 1 results:\nDocID:a\n=======\n"


@pytest.mark.parametrize(
    "result",
    [
        HEADED + "A search for 'lamp' found 2 results:\nDocID:b\nDocID:c",
        "## lamp year\n\nDocID:a\nsnippet: 'lamp' in quotes\n\n## lamp\n\nDocID:b\nDocID:c",
        'Results for query: "lamp year"\nDocID:a\n\nResults for query: "lamp"\nDocID:b\nDocID:c',
        "Query: lamp year\nDocID:a\n\nQuery: lamp\nDocID:b\nDocID:c",
        [docs("a"), docs("b", "c")],
        {"results": [docs("a"), docs("b", "c")]},
        {"lamp year": docs("a"), "lamp": {"results": docs("b", "c")}},
        [
            {"query": "lamp year", "results": docs("a")},
            {"query": "lamp", "results": docs("b", "c")},
        ],
    ],
    ids=repr,
)
def test_each_query_has_its_hits(result):
    assert found(result, "lamp year", "lamp") == ({"lamp year": ["a"], "lamp": ["b", "c"]}, False)


def test_only_the_queries_that_the_result_answers_are_searches():
    """LRAT's tool runs the first of the list alone."""
    assert found(HEADED, "lamp year", "lamp") == ({"lamp year": ["a"]}, False)


def test_a_query_with_quotes_of_its_own():
    query = '"15/02/2022" Italy'
    result = f"A search for '{query}' found 1 results:\n\nDocID:a"
    assert found(result, query, "Italy") == ({query: ["a"]}, False)


@pytest.mark.parametrize(
    "result",
    ["DocID:a\nDocID:b", docs("a", "b"), "Here is 'lamp':\ntext 'other'\nDocID:a\nDocID:b"],
)
def test_hits_that_cannot_be_given_to_a_query_are_those_of_the_first(result):
    assert found(result, "q", "other") == ({"q": ["a", "b"]}, True)


def test_what_else_is_known_of_a_hit():
    item = {
        "id": 7,
        "title": "Lamp",
        "content": "Lit in 1871.",
        "score": 0.5,
        "url": "https://x/",
        "metadata": {"doc_id": "d7", "source": "lamp.md"},
    }
    [(_, [hit])], _ = answers(["q"], Call("search", {}, [item]), SEARCH)
    assert (hit.doc_id, hit.title, hit.text, hit.score) == ("7", "Lamp", "Lit in 1871.", 0.5)
    assert hit.others == ("d7", "lamp.md", "https://x/")
