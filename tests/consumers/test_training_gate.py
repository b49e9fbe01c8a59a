"""What the gate takes for relevant, and to which queries."""

from consumers.training_gate import relevance
from schemas.events import Agent
from schemas.pairs import LabelledPair, pair_id


def pair(number, query, positive, *earlier_queries):
    return LabelledPair(
        pair_id=pair_id("", "t", number, "reference"),
        trajectory_id="t",
        browse_seq=number,
        revision="",
        profile="reference",
        query=query,
        earlier_queries=earlier_queries,
        positive=positive,
        negatives=(),
        verdict="relevant",
        judge="local",
        judge_version="1",
        rejected=0,
        rank=1,
        outcome="unknown",
        closed_by="end",
        gaps=0,
        agent=Agent(name="a", model="m"),
        tenant="",
    )


def test_spellings_of_a_query_are_one_query_in_any_order():
    pairs = [pair(1, "Open a  File", "a"), pair(2, "open a file", "b")]
    assert relevance(pairs) == relevance(reversed(pairs)) == {"Open a  File": {"a", "b"}}


def test_queries_asked_in_vain_for_the_same_thing_count_as_well():
    assert relevance([pair(1, "open a file", "a", "open", "read file")]) == {
        "open a file": {"a"},
        "open": {"a"},
        "read file": {"a"},
    }


def test_queries_that_may_have_been_trained_on_are_left_out():
    found = relevance([pair(1, "open a file", "a", "Open", "read file")], {"open"})
    assert set(found) == {"open a file", "read file"}
