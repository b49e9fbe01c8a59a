"""The mining rules, one by one."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.mine.mining import Rule, decide
from streams.mine.steps import BreakStep, BrowseStep, ReasoningStep, SearchStep
from tests.effort import examples


def steps(*parts):
    """Steps in short hand: ``("q", "ab")`` a search, ``"+a"`` ``"-a"`` ``"?a"`` a browse with its
    verdict in a reasoning, ``"a"`` a browse without a reasoning, ``"!"`` a reasoning (relevant)
    about the browse right before it, ``"."`` something else."""
    found = []
    for part in parts:
        seq = len(found)
        if isinstance(part, tuple):
            found.append(SearchStep(part[0], list(part[1])))
        elif part == ".":
            found.append(BreakStep())
        elif part == "!":
            found.append(ReasoningStep(None, 10, "relevant", "local", "1"))
        else:
            found.append(BrowseStep(seq, part[-1]))
            if len(part) == 2:
                verdict = {"+": "relevant", "-": "irrelevant", "?": "unknown"}[part[0]]
                found.append(ReasoningStep(part[1], 10, verdict, "local", "1"))
    return found


def mine(trajectory, profile):
    """The pairs of a trajectory."""
    return [one.pair for one in decide(trajectory, profile) if one.pair is not None]


def short(*parts, profile="reference"):
    """Mined pairs as ``query verdict positive negatives rejected``."""
    sign = {"relevant": "+", "irrelevant": "-"}
    return [
        f"{pair.query}{sign[pair.verdict]}{pair.positive} {''.join(pair.negatives)} {pair.rejected}"
        for pair in mine(steps(*parts), profile)
    ]


@pytest.mark.parametrize(
    ("trajectory", "pairs"),
    [
        pytest.param([("q", "abc"), "+b"], ["q+b ac 0"], id="hits not opened are negatives"),
        pytest.param(
            [("q", "abc"), ("r", "bde"), "+b"], ["r+b deac 0"], id="latest search first, no doubles"
        ),
        pytest.param(
            [("q", "abc"), "a", "b", "!", "!", "c"],
            ["q+b c 0"],
            id="an unnamed reasoning is about the browse right before it",
        ),
        pytest.param([("q", "ab"), "!", "a", ".", "!"], [], id="or about none"),
        pytest.param([("q", "abc"), "-a", "+b"], ["q-a c 0", "q+b ac 1"], id="rejected come first"),
        pytest.param(
            [("q", "abcd"), "-a", "-b", "+c"],
            ["q-a bd 1", "q-b ad 1", "q+c bad 2"],
            id="rejected in the run, latest first",
        ),
        pytest.param(
            [("q", "abcde"), "-a", "-b", ".", "-c", "+d"],
            ["q-a bcde 1", "q-b acde 1", "q-c bae 2", "q+d cbae 3"],
            id="this run's rejected before earlier ones",
        ),
        pytest.param([("q", "ab"), "+a", "+b"], ["q+a  0", "q+b  0"], id="relevant is no negative"),
        pytest.param(
            [("q", "abc"), "+a", ".", "+b"], ["q+a bc 0"], id="a relevant run forgets the searches"
        ),
        pytest.param(
            [("q", "abc"), "+a", ("r", "ab"), "+b"],
            ["q+a bc 0", "r+b a 0"],
            id="documents opened before the reset count again",
        ),
        pytest.param([("q", "abc"), "?a", "+b"], ["q+b c 0"], id="unknown gives and is nothing"),
        pytest.param([("q", "abc"), "a", "+b"], ["q+b c 0"], id="no reasoning is unknown"),
        pytest.param(
            [("q", "abc"), "?a", ".", "+b"], ["q+b c 0"], id="unknown resets nothing and stays out"
        ),
        pytest.param([("q", "ab"), "-z", "+a"], ["q+a zb 1"], id="rejected though never a hit"),
        pytest.param([("q", "ab"), "+z", ".", "+a"], [], id="relevant though never a hit resets"),
        pytest.param(["+a"], [], id="a browse before any search"),
        pytest.param(
            [("q", "abc"), "-a", "+a"], ["q-a bc 0", "q+a bc 0"], id="opened twice: two pairs"
        ),
        pytest.param([("q", ""), "+a", ("r", "ab"), "+b"], ["r+b a 0"], id="a search without hits"),
        pytest.param(
            [("q", "ab"), ("r", ""), "+b"],
            ["q+b a 0"],
            id="a search without hits does not change the query",
        ),
    ],
)
def test_reference(trajectory, pairs):
    assert short(*trajectory) == pairs


@pytest.mark.parametrize(
    ("trajectory", "pairs"),
    [
        pytest.param(
            [("q", "abc"), ("r", "bde"), "+a"], ["q+a bc 0"], id="the latest search that holds it"
        ),
        pytest.param([("q", "abc"), "-a", "+b"], ["q-a bc 0", "q+b ac 1"], id="rest of the hits"),
        pytest.param([("q", "abc"), "?a", "+b"], ["q+b c 0"], id="unknown left out"),
    ],
)
def test_paper(trajectory, pairs):
    assert short(*trajectory, profile="paper") == pairs


def test_a_reasoning_about_nothing_ends_a_run():
    trajectory = [
        SearchStep("q", ["a", "b", "c"]),
        BrowseStep(1, "a"),
        ReasoningStep("a", 3, "irrelevant", "local", "1"),
        BreakStep(),
        BrowseStep(4, "b"),
        ReasoningStep("b", 4, "relevant", "local", "1"),
    ]
    first, second = mine(trajectory, "reference")
    assert first.negatives == ("b", "c")
    assert second.negatives == ("a", "c")


def test_a_reasoning_about_another_document_is_not_its_verdict():
    trajectory = [
        SearchStep("q", ["a", "b"]),
        BrowseStep(1, "a"),
        ReasoningStep("b", 3, "relevant", "local", "1"),
    ]
    (decision,) = decide(trajectory, "reference")
    assert (decision.result, decision.pair) == ("unknown", None)


def test_a_pair_names_the_queries_of_its_phase_that_led_to_its_own():
    trajectory = steps(
        ("p", "a"),
        "+a",
        ("q", "ab"),
        ("r", "cd"),
        ("q", "ab"),
        ".",
        ("s", "ef"),
        "+e",
        ("t", "g"),
        "+g",
    )
    assert [(pair.query, pair.earlier_queries) for pair in mine(trajectory, "reference")] == [
        ("p", ()),
        ("s", ("q", "r")),
        ("t", ()),
    ]


def test_the_paper_asks_what_the_latest_search_that_holds_the_document_asked():
    trajectory = steps(("p", "x"), ("q", "ab"), ("r", "cd"), "+a")
    [paper], [reference] = (mine(trajectory, profile) for profile in ("paper", "reference"))
    assert (paper.query, paper.earlier_queries) == ("q", ("p",))
    assert (reference.query, reference.earlier_queries) == ("r", ("p", "q"))


def test_under_judge_none_the_verdict_is_on_the_browse_and_the_length_on_the_reasoning():
    trajectory = [
        SearchStep("q", ["a", "b"]),
        BrowseStep(1, "b", "relevant", "none", "1"),
        ReasoningStep("b", 40),
    ]
    (pair,) = mine(trajectory, "reference")
    assert (pair.verdict, pair.judge, pair.reasoning_tokens, pair.rank) == (
        "relevant",
        "none",
        40,
        2,
    )


def test_rank_is_that_of_the_latest_search_that_holds_the_document():
    trajectory = [
        SearchStep("q", ["a", "b"]),
        SearchStep("r", ["c", "b"], [11, 12], retriever_version=3),
        BrowseStep(2, "b", "relevant", "none", "1"),
    ]
    (pair,) = mine(trajectory, "reference")
    assert (pair.rank, pair.retriever_version) == (12, 3)


def test_where_each_hit_stood_with_or_without_a_pair():
    trajectory = steps(("q", "abc"), "-a", "?c", "+b", ("r", "bd"), "+b", "+x")
    found = [(one.result, one.verdict, one.rank) for one in decide(trajectory, "reference")]
    assert found == [
        ("irrelevant", "irrelevant", 1),
        ("unknown", "unknown", 3),
        ("relevant", "relevant", 2),
        ("relevant", "relevant", 1),
        ("unsearched", "relevant", None),
    ]


def roles(trajectory, profile):
    """What each document is for the pair of the last browse."""
    *_, last = decide(trajectory, profile)
    return {doc_id: role for doc_id in "abcdefx" if (role := last.role_of(doc_id)) is not None}


def test_each_document_of_a_phase_has_a_role_and_its_rule():
    trajectory = steps(("q", "abc"), "-a", "?b", ".", ("r", "cdefa"), "-d", "+e", "+c")
    assert roles(trajectory, "reference") == {
        "c": "positive",
        "d": "rejected in this run",
        "a": "rejected earlier",
        "f": "not opened",
        "e": "relevant in this run",
        "b": "unknown verdict",
    }
    trajectory = steps(("q", "abc"), "-a", "?b", ".", ("r", "cbdefa"), "-d", "+e", "+c")
    assert roles(trajectory, "paper") == {
        "c": "positive",
        "d": "rejected in this run",
        "a": "rejected earlier",
        "e": "another hit of the search",
        "f": "another hit of the search",
        "b": "unknown verdict",
    }
    assert roles(steps(("q", "ab"), "?a"), "reference") == {}


_parts = st.lists(
    st.sampled_from([("q", "abc"), ("r", "cdb"), ("s", ""), "a", ".", "!", "+z"])
    | st.tuples(st.sampled_from("+-?"), st.sampled_from("abcd")).map("".join),
    max_size=14,
)


@given(_parts, st.sampled_from(["reference", "paper"]))
@settings(max_examples=examples(300), deadline=None)
def test_the_rules_of_a_pair_are_those_of_its_documents(parts, profile):
    for decision in decide(steps(*parts), profile):
        if (pair := decision.pair) is None:
            assert decision.result in ("unknown", "unsearched")
            continue
        named = [doc_id for _, doc_ids in decision.negatives for doc_id in doc_ids]
        assert (*named,) == pair.negatives
        assert len(set(named)) == len(named)
        negative = set(get_args(Rule))
        for doc_id in "abcdz":
            role = decision.role_of(doc_id)
            assert (role == "positive") == (doc_id == pair.positive)
            assert (role in negative) == (doc_id in pair.negatives)
        rules = [decision.role_of(doc_id) for doc_id in pair.negatives]
        assert all("rejected" in rule for rule in rules[: pair.rejected])
        assert not any("rejected" in rule for rule in rules[pair.rejected :][:1])
