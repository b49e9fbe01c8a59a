"""The mining rules, one by one."""

from collections import Counter

import pytest

from streams.mine.mining import mine
from streams.mine.steps import BreakStep, BrowseStep, ReasoningStep, SearchStep


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
    counts = Counter()
    assert mine(trajectory, "reference", counts) == []
    assert counts["browses", "unknown"] == 1


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


def test_where_each_hit_stood_is_counted_with_or_without_a_pair():
    tally = Counter()
    mine(steps(("q", "abc"), "-a", "?c", "+b", ("r", "bd"), "+b", "+x"), "reference", tally)
    assert {key: number for key, number in tally.items() if key[0] == "rank"} == {
        ("rank", "irrelevant", "1"): 1,
        ("rank", "unknown", "3"): 1,
        ("rank", "relevant", "2"): 1,
        ("rank", "relevant", "1"): 1,
    }
    assert tally["browses", "unsearched"] == 1
