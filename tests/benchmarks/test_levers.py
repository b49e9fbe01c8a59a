"""The levers of the ablation as functions of plain values."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ablation import levers
from benchmarks.ablation.levers import Scored
from benchmarks.ablation.turns import levers_of
from simulation.corpus import Need
from trainer.data.examples import TrainingExample
from trainer.fit.batching import Batch


def example(
    pair_id: str, query: str, positive: str, *negatives: str, weight: float = 1.0
) -> TrainingExample:
    return TrainingExample(
        pair_id,
        query,
        positive,
        f"text of {positive}",
        tuple((doc_id, f"text of {doc_id}") for doc_id in negatives),
        weight,
    )


def scored(doc_id: str, score: float) -> Scored:
    return Scored(doc_id, f"text of {doc_id}", score)


def test_words_of_a_document_ask_for_its_rest() -> None:
    long = " ".join(f"w{n}" for n in range(40))
    [found] = levers.spans([("long", long), ("short", "few words")], 2, Random(1))
    rest = found.positive_text.split()
    assert found.positive_id == "long"
    assert len(found.query.split()) == levers.SPAN_WORDS
    assert sorted([*found.query.split(), *rest]) == sorted(long.split())
    assert found.query in long


def test_negatives_of_the_collection_stand_beside_the_agents_own() -> None:
    trained = [example("1", "q", "p", "own"), example("2", "Q", "also"), example("3", "r", "p")]
    hits = [
        scored("too near", 0.77),
        scored("p", 0.8),
        scored("own", 0.7),
        scored("also", 0.7),
        scored("near", 0.76),
        scored("far", 0.5),
        scored("farther", 0.4),
    ]
    found = levers.with_hard_negatives(
        trained,
        {"q": hits, "Q": hits, "r": hits},
        {"1": 0.8, "2": 0.8, "3": 0.45},
        share=0.95,
        most=2,
    )
    assert [[doc_id for doc_id, _ in each.negatives] for each in found] == [
        ["own", "near", "far"],
        ["own", "near"],
        ["farther"],
    ]
    assert [each.query for each in found] == ["q", "Q", "r"]


def test_a_positive_far_below_a_hit_that_was_passed_over_is_dropped() -> None:
    some = [example(str(number), "q", "p") for number in range(4)]
    scores = [(0.5, [0.64, 0.1]), (0.5, [0.1, 0.66]), (0.5, []), (0.9, [0.2])]
    kept = levers.plausible(some, scores, margin=0.15)
    assert kept == [some[0], some[2], some[3]]


@given(st.integers(2, 12), st.integers(1, 80), st.integers())
def test_exploration_replaces_the_last_hit_by_a_lower_document(
    shown: int, more: int, seed: int
) -> None:
    order = list(range(100, 100 + shown + more))
    found = levers.explored(order, shown, Random(seed))
    assert found[:-1] == order[: shown - 1]
    assert found[-1] in order[shown : 5 * shown]


def test_levers_are_joined_by_a_plus() -> None:
    assert levers_of("hard+passes") == {"hard", "passes"}
    assert not any(map(levers_of, ("reweight", "hard+reweight", "hard+", "")))


def test_what_the_parent_scores_above_the_positive_is_masked() -> None:
    batch = Batch(
        queries=("q", "r"),
        documents=("a", "b", "c"),
        positive=(0, 1),
        masked=(frozenset(), frozenset({2})),
        weights=(1.0, 1.0),
        pair_ids=("1", "2"),
    )
    scores = np.array([[0.5, 0.56, 0.65], [0.9, 0.5, 0.1]], dtype=np.float32)
    assert levers.without_false_negatives(batch, scores, 0.1).masked == ({2}, {0, 2})
    assert levers.without_false_negatives(batch, scores, 1.0) == batch


def test_full_supervision_has_every_label_and_no_relevant_negative() -> None:
    need = Need("n", "what?", {"a": 1, "b": 1})
    hits = {"what?": [scored("c", 0.9), scored("b", 0.8), scored("d", 0.7)]}
    found = levers.full_supervision([need], hits, lambda doc_id: f"text of {doc_id}")
    assert [(each.query, each.positive_id) for each in found] == [("what?", "a"), ("what?", "b")]
    assert all([doc_id for doc_id, _ in each.negatives] == ["c", "d"] for each in found)
    assert len({each.pair_id for each in found}) == 2


def test_a_query_is_held_back_with_all_of_its_examples() -> None:
    some = [example(f"{n}", f"query {n // 2}", f"d{n}") for n in range(600)]
    fitted, back = levers.held_back(some, 0.15)
    assert sorted([*fitted, *back], key=lambda each: int(each.pair_id)) == some
    assert not {each.query for each in fitted} & {each.query for each in back}
    assert 0.1 < len(back) / len(some) < 0.2


@pytest.mark.parametrize(
    ("values", "most", "patience", "best", "read"),
    [
        ((0.1, 0.3, 0.2, 0.9), 4, 1, 2, 3),
        ((0.1, 0.3, 0.2, 0.9), 4, 2, 4, 4),
        ((0.3, 0.3, 0.9), 3, 1, 1, 2),
        ((0.1, 0.2, 0.3), 2, 1, 2, 2),
        ((0.5,), 1, 1, 1, 1),
    ],
)
def test_training_stops_when_a_pass_does_not_help(
    values: Sequence[float], most: int, patience: int, best: int, read: int
) -> None:
    left = iter(values)
    assert levers.best_pass(left, most, patience) == best
    assert len(list(left)) == len(values) - read
