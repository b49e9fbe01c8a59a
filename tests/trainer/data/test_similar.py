"""Pairs for queries that found nothing, from plain values."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.runs import SimilarRule
from tests.trainer.labelled import labelled
from trainer.data import similar as module
from trainer.data.draws import is_held_out
from trainer.data.similar import Asked, Encode, Unanswered, similar

RULE = SimilarRule(similarity=0.8, lead=0.1, weight=0.5)
QUERIES = [query for n in range(60) if not is_held_out(query := f"query {n}")]
HELD_OUT = next(query for n in range(60) if is_held_out(query := f"query {n}"))


def at(angles: dict[str, float]) -> Encode:
    """Vectors in a plane; queries are as similar as the cosine of the angle between them."""

    def encode(queries: Sequence[str]) -> NDArray[np.float32]:
        angle = np.radians([angles[query] for query in queries])
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    return encode


def asked(query: str, tenant: str = "t") -> Asked:
    return Asked(query, "asking", tenant)


def test_a_query_gets_what_the_most_similar_one_found() -> None:
    near = labelled(1, query="near", positive="a", negatives=("x",), reasoning_tokens=7)
    far = labelled(2, query="far", positive="b")
    [made] = similar([asked("vain")], [far, near], at({"vain": 0, "near": 20, "far": 60}), RULE)
    assert (made.found_by, made.asked_by, made.factor) == (near.pair_id, "asking", 0.5)
    changed = {"pair_id": made.pair.pair_id, "query": "vain"}
    assert made.pair == near.model_copy(update=changed)
    assert made.pair.pair_id != near.pair_id


@pytest.mark.parametrize(
    ("angle", "positive", "made"), [(25, "b", 0), (25, "a", 1), (35, "b", 1)], ids=str
)
def test_no_other_document_may_be_nearly_as_likely(angle: int, positive: str, made: int) -> None:
    found = [labelled(1, query="near", positive="a"), labelled(2, query="o", positive=positive)]
    angles = {"vain": 0, "near": 20, "o": angle}
    assert len(similar([asked("vain")], found, at(angles), RULE)) == made


def test_a_query_that_is_not_similar_enough_gets_nothing() -> None:
    found = [labelled(1, query="near")]
    assert not similar([asked("vain")], found, at({"vain": 0, "near": 40}), RULE)
    assert not similar([asked("vain")], [], at({}), RULE)
    assert not similar([], found, at({}), RULE)


def test_tenants_do_not_learn_from_each_other() -> None:
    found = [labelled(1, query="theirs", tenant="u"), labelled(2, query="own", positive="b")]
    encode = at({"vain": 0, "theirs": 0, "own": 30})
    assert [one.found_by for one in similar([asked("vain")], found, encode, RULE)] == [
        found[1].pair_id
    ]
    assert not similar([asked("vain", "v")], found, encode, RULE)


def test_what_found_nothing_is_reworded_or_opened_in_vain() -> None:
    first, second, third, fourth = QUERIES[:4]
    unanswered = Unanswered(10)
    vain = labelled(1, query=second, earlier_queries=(first, HELD_OUT), verdict="irrelevant")
    found = labelled(2, query=fourth, earlier_queries=(third.upper(), fourth))
    unanswered.add([vain, found])
    left = {each.query: each for each in unanswered.left([found, labelled(3, query=first)])}
    assert left == {
        second: Asked(second, vain.pair_id, "t"),
        third.upper(): Asked(third.upper(), found.pair_id, "t"),
    }


def test_no_more_queries_are_kept_than_a_run_has_pairs() -> None:
    few, every = Unanswered(5), Unanswered(len(QUERIES))
    pairs = [labelled(n, query=query, verdict="irrelevant") for n, query in enumerate(QUERIES)]
    for pair in pairs:
        few.add([pair])
        every.add([pair])
    assert few.left([]) == every.left([])[:5]
    assert len(every.left([])) == len(QUERIES)


@given(
    st.lists(st.integers(0, 90), max_size=8),
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from("ab")), max_size=8),
    st.integers(1, 4),
)
def test_a_pair_is_made_exactly_where_the_rule_holds(
    vain: list[int], others: list[tuple[int, str]], at_once: int
) -> None:
    queries = [asked(f"vain {n}") for n in range(len(vain))]
    found = [
        labelled(n, query=f"found {n}", positive=positive) for n, (_, positive) in enumerate(others)
    ]
    angles: dict[str, float] = {
        each.query: angle for each, angle in zip(queries, vain, strict=True)
    }
    angles |= {pair.query: angle for pair, (angle, _) in zip(found, others, strict=True)}
    encode = at(angles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        made = {one.pair.query: one for one in similar(queries, found, encode, RULE)}
    for query in queries:
        values = [float(v) for v in encode([p.query for p in found]) @ encode([query.query])[0]]
        best = max(range(len(values)), key=values.__getitem__, default=None)
        expected = None
        if best is not None and values[best] >= RULE.similarity:
            rest = [
                v for v, p in zip(values, found, strict=True) if p.positive != found[best].positive
            ]
            if not rest or max(rest) <= values[best] - RULE.lead:
                expected = found[best].pair_id
        one = made.get(query.query)
        assert (one and one.found_by) == expected
