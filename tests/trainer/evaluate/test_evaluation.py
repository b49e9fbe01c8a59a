import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluate import evaluation
from trainer.evaluate.evaluation import (
    QueryMetrics,
    choose_pool,
    evaluate,
    evaluate_vectors,
)
from trainer.model.encoder import Encoder


class Axes:
    """An encoder whose texts are their vectors, such as "3 0 4"."""

    def encode_documents(self, texts: Sequence[str], **_: Any) -> Any:
        return np.array([[float(x) for x in text.split()] for text in texts], dtype=np.float32)

    encode_queries = encode_documents


AXES: Any = Axes()


def test_metrics_by_hand() -> None:
    documents = {f"d{i:02}": f"{20 - i} 0" for i in range(20)}
    relevant = {"1 0": {"d01", "d05", "d15"}}

    (found,) = evaluate(AXES, relevant, documents).values()

    gains = 1 / math.log2(3) + 1 / math.log2(7)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found.ndcg_at_10 == pytest.approx(gains / ideal)
    assert found.recall_at_10 == pytest.approx(2 / 3)
    assert found.reciprocal_rank == 0.5


def test_a_relevant_document_below_the_cutoff_counts_for_mrr_alone() -> None:
    documents = {f"d{i:02}": f"{20 - i} 0" for i in range(20)}

    (found,) = evaluate(AXES, {"1 0": {"d19"}}, documents).values()

    assert found == QueryMetrics(0.0, 0.0, 1 / 20, tuple(sorted(documents)[:10]))


def test_ranks_below_the_depth_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "DEPTH", 19)
    documents = {f"d{i:02}": f"{20 - i} 0" for i in range(20)}

    found = evaluate(AXES, {"1 0": {"d19"}, "2 0": {"d18"}}, documents)

    assert [round(one.reciprocal_rank, 6) for one in found.values()] == [0.0, round(1 / 19, 6)]


def test_grades_are_linear_gains_and_zero_is_not_relevant() -> None:
    documents = {"a": "3 0", "b": "2 0", "c": "1 0"}

    found = evaluate(AXES, {"1 0": {"a": 0, "b": 1, "c": 3}, "2 0": {"a": 0}}, documents)

    ideal = 3 + 1 / math.log2(3)
    assert set(found) == {"1 0"}
    assert found["1 0"].ndcg_at_10 == pytest.approx((1 / math.log2(3) + 3 / math.log2(4)) / ideal)
    assert (found["1 0"].recall_at_10, found["1 0"].reciprocal_rank) == (1.0, 0.5)


def test_ties_are_broken_by_doc_id() -> None:
    documents = {"b": "1 0", "a": "1 0", "c": "1 0", "z": "0 1"}

    ranks = {
        doc_id: round(1 / evaluate(AXES, {"1 0": {doc_id}}, documents)["1 0"].reciprocal_rank)
        for doc_id in documents
    }

    assert ranks == {"a": 1, "b": 2, "c": 3, "z": 4}


def test_differences_below_the_sixth_digit_are_ties() -> None:
    documents = {"a": "0.5 0", "b": "0.50000001 0"}
    assert evaluate(AXES, {"1 0": {"b"}}, documents)["1 0"].hits == ("a", "b")


def test_documents_outside_the_pool_do_not_count_and_queries_without_any_are_left_out() -> None:
    found = evaluate(AXES, {"1 0": {"a", "gone"}, "0 1": {"gone"}, "1 1": set()}, {"a": "1 0"})

    assert found == {"1 0": QueryMetrics(1.0, 1.0, 1.0, ("a",))}


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.sets(st.integers(0, 29), min_size=1, max_size=12),
)
def test_metrics_agree_with_a_plain_ranking(scores: list[int], relevant: set[int]) -> None:
    documents = {f"d{i:02}": str(score) for i, score in enumerate(scores)}
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    hits = [i in relevant for i in ranked]
    count = sum(hits)

    found = evaluate(AXES, {"1": {f"d{i:02}" for i in relevant}}, documents)

    if count == 0:
        assert found == {}
        return
    gain = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(hits[:10], 1))
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(count, 10) + 1))
    assert found["1"].ndcg_at_10 == pytest.approx(gain / ideal)
    assert found["1"].recall_at_10 == pytest.approx(sum(hits[:10]) / count)
    assert found["1"].reciprocal_rank == pytest.approx(1 / (hits.index(True) + 1))


def test_vectors_can_be_reused(encoder: Encoder) -> None:
    documents = {f"d{i}": f"text number {i}" for i in range(9)}
    relevant = {"number 3": {"d3"}, "text 7": {"d7"}}
    ids = sorted(documents)
    vectors = encoder.encode_documents([documents[doc_id] for doc_id in ids])

    assert evaluate_vectors(encoder, relevant, ids, vectors) == evaluate(
        encoder, relevant, documents
    )


def test_means() -> None:
    found = evaluation.mean({"a": QueryMetrics(1.0, 0.5, 0.25), "b": QueryMetrics(0.0, 0.5, 0.75)})

    assert (found.ndcg_at_10, found.recall_at_10, found.mrr) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no query"):
        evaluation.mean({})


ids = st.lists(st.sampled_from([f"d{i}" for i in range(60)]), max_size=40, unique=True)


@given(relevant=ids, hits=st.lists(ids, max_size=5), sample=ids, limit=st.integers(2, 40))
def test_a_pool_has_all_relevant_documents_first_hits_and_a_sample(
    relevant: list[str], hits: list[list[str]], sample: list[str], limit: int
) -> None:
    pool = choose_pool(relevant, hits, sample, limit=limit)

    assert set(relevant) <= pool <= {*relevant, *sample, *(d for some in hits for d in some)}
    assert len(pool) <= max(limit, len(relevant))
    if len(pool) < limit:
        assert set(sample) <= pool
    first = {some[0] for some in hits if some}
    assert first <= pool or len(pool) >= limit // 2


def test_hits_enter_a_pool_rank_by_rank() -> None:
    hits = [["a", "b", "c"], ["d", "e"], ["f", "g", "h"]]
    assert choose_pool(["r"], hits, ["s", "t", "u"], limit=12) == {
        *("r", "a", "d", "f", "b", "e"),
        *("s", "t", "u"),
    }
