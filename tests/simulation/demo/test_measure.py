import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from simulation import fleet
from simulation.corpus import Need
from simulation.demo import measure
from simulation.scripted import Asked, Browsed, Ended, Mind, Step, act
from trainer.evaluate import evaluation


@dataclass(frozen=True)
class Hit:
    doc_id: str
    rank: int
    score: float
    text: str


DOCUMENTS = {f"d{number}": f"the document about subject{number} alone" for number in range(30)}
NEEDS = [Need(f"n{n}", f"tell me about subject{n}", {f"d{n}": 1}) for n in range(30)]


class Toy:
    """Finds the document of a subject at a given rank, and counts its calls."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.sizes: list[int] = []

    def __call__(self, queries: Sequence[str]) -> list[list[Hit]]:
        self.sizes.append(len(queries))
        return [self.one(query) for query in queries]

    def one(self, query: str) -> list[Hit]:
        wanted = [d for d, text in DOCUMENTS.items() if set(text.split()[3:4]) & set(query.split())]
        ids = [doc_id for doc_id in DOCUMENTS if doc_id not in wanted]
        ids[self.rank - 1 : self.rank - 1] = wanted
        return [
            Hit(doc_id, rank, 1.0 / rank, DOCUMENTS[doc_id])
            for rank, doc_id in enumerate(ids[:10], 1)
        ]


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (2, 1 / math.log2(3)), (11, 0.0)])
def test_quality_of_a_retriever_that_is_always_so_good(rank: int, expected: float) -> None:
    found = measure.quality(NEEDS, Toy(rank))
    assert found.ndcg_at_10 == pytest.approx(expected)
    assert found.recall_at_10 == (1.0 if rank <= 10 else 0.0)


def test_queries_are_sent_many_at_once_and_progress_is_reported() -> None:
    reported: list[tuple[int, int]] = []
    search = Toy(1)
    measure.quality(NEEDS * 5, search, progress=lambda done, of: reported.append((done, of)))
    assert search.sizes == [64, 64, 22]
    assert reported == [(64, 150), (128, 150), (150, 150)]


def test_behaviour_is_that_of_the_same_agents_one_by_one() -> None:
    search = Toy(3)
    found = measure.behaviour(NEEDS, search, seed=5)
    taken: list[Step] = []
    for need in NEEDS:
        fleet.work_in_rounds(
            [(None, act(need, Mind.of(5, "measured", need.need_id)))],
            lambda queries: [search.one(query) for query in queries],
            lambda _, step, hits: taken.append(step),
        )
    steps = sum(isinstance(step, Asked | Browsed) for step in taken)
    correct = sum(isinstance(step, Ended) and step.outcome == "correct" for step in taken)
    assert (found.success_rate, found.mean_steps) == (correct / 30, steps / 30)
    assert 0 < found.success_rate <= 1


def test_a_better_retriever_means_more_success_and_fewer_steps() -> None:
    good = measure.behaviour(NEEDS, Toy(1), seed=0)
    bad = measure.behaviour(NEEDS, Toy(11), seed=0)
    assert good.success_rate > bad.success_rate
    assert good.mean_steps < bad.mean_steps
    assert bad.success_rate == 0.0


def test_ndcg_with_several_relevant_documents_and_grades() -> None:
    grades = [{"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 2, "b": 1}]
    found = evaluation.measure(grades, [["a", "b"], ["x", "a"], ["b", "a"]])
    second = 1 / math.log2(3)
    assert [metrics.ndcg_at_10 for metrics in found] == pytest.approx(
        [1.0, second / (1 + second), (1 + 2 * second) / (2 + second)]
    )


def test_only_ten_hits_count() -> None:
    below = [f"x{number}" for number in range(10)] + ["a"]
    nothing, half, none_found = evaluation.measure(
        [{"a": 1}, {"a": 1, "b": 1}, {"a": 1}], [below, ["a"], []]
    )
    assert (nothing.ndcg_at_10, nothing.recall_at_10) == (0.0, 0.0)
    assert half.recall_at_10 == 0.5
    assert (none_found.ndcg_at_10, none_found.recall_at_10) == (0.0, 0.0)
