"""Pairs for earlier queries, from plain values."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.runs import EarlierRule
from tests.trainer.labelled import labelled
from trainer.data.draws import is_held_out, normalize_query
from trainer.data.earlier import Encode, earlier

RULE = EarlierRule(similarity=0.8, weight=0.5)
FIRST, SECOND, LAST = [q for n in range(60) if not is_held_out(q := f"query {n}")][:3]
HELD_OUT = next(q for n in range(60) if is_held_out(q := f"query {n}"))


def at(angles: dict[str, float]) -> Encode:
    """Vectors in a plane; queries are as similar as the cosine of the angle between them."""

    def encode(queries: Sequence[str]) -> NDArray[np.float32]:
        angle = np.radians([angles[query] for query in queries])
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    return encode


def equal(queries: Sequence[str]) -> NDArray[np.float32]:
    return np.ones((len(queries), 1), dtype=np.float32)


def test_an_earlier_query_that_is_similar_gets_the_document() -> None:
    pair = labelled(1, query=LAST, earlier_queries=(FIRST, SECOND), negatives=("x",))
    [made] = earlier([pair], at({LAST: 0, FIRST: 30, SECOND: 40}), RULE)
    assert (made.found_by, made.factor) == (pair.pair_id, 0.5)
    changed = {"pair_id": made.pair.pair_id, "query": FIRST, "earlier_queries": ()}
    assert made.pair == pair.model_copy(update=changed)
    assert made.pair.pair_id != pair.pair_id


def test_held_out_queries_get_nothing() -> None:
    pair = labelled(1, query=LAST, earlier_queries=(HELD_OUT,))
    assert earlier([pair], equal, RULE) == []


def test_without_earlier_queries_nothing_is_encoded() -> None:
    def fail(queries: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError(queries)

    assert earlier([labelled(1), labelled(2)], fail, RULE) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([FIRST, SECOND, LAST]),
            st.lists(st.sampled_from([FIRST.upper(), FIRST, SECOND, LAST, HELD_OUT]), max_size=3),
            st.sampled_from("ab"),
        ),
        max_size=6,
    )
)
def test_a_query_gets_a_document_once(drawn: list[tuple[str, list[str], str]]) -> None:
    found = [
        labelled(n, query=query, earlier_queries=tuple(before), positive=positive)
        for n, (query, before, positive) in enumerate(drawn)
    ]
    made = [
        (normalize_query(one.pair.query), one.pair.positive) for one in earlier(found, equal, RULE)
    ]
    own = {(normalize_query(pair.query), pair.positive) for pair in found}
    asked = {
        (normalize_query(query), pair.positive)
        for pair in found
        for query in pair.earlier_queries
        if not is_held_out(query)
    }
    assert sorted(made) == sorted(asked - own)
