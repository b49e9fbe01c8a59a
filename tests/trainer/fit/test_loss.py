"""The loss against a plain reference in float64, over texts instead of matrices."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.labelled import example
from trainer.data.examples import TrainingExample
from trainer.fit import batching
from trainer.fit.loss import weighted_info_nce

DIM = 6
TEMPERATURE = 0.07


def unit(text: str) -> list[float]:
    draw = random.Random(text)
    vector = [draw.gauss(0, 1) for _ in range(DIM)]
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]


def reference(group: list[TrainingExample], everything: list[TrainingExample]) -> float:
    """The formula in trainer.fit.loss, over texts, with loops."""

    def known(own: TrainingExample) -> set[str]:
        return {e.positive_text for e in everything if e.query.casefold() == own.query.casefold()}

    total = 0.0
    for own in group:
        negatives = {text for e in group for _, text in e.negatives if text not in known(e)}
        against = {e.positive_text for e in group} | negatives
        against -= known(own) | {own.positive_text}
        query = unit("q" + own.query)

        def score(text: str, query: list[float] = query) -> float:
            return sum(a * b for a, b in zip(query, unit(text), strict=True)) / TEMPERATURE

        positive = score(own.positive_text)
        denominator = math.exp(positive) + sum(math.exp(score(text)) for text in against)
        total += own.weight * (positive - math.log(denominator))
    return -total / len(group)


def ours(batch: batching.Batch) -> torch.Tensor:
    masked = torch.zeros(len(batch.queries), len(batch.documents), dtype=torch.bool)
    for row, columns in enumerate(batch.masked):
        masked[row, list(columns)] = True
    return weighted_info_nce(
        torch.tensor([unit("q" + q) for q in batch.queries], dtype=torch.float64),
        torch.tensor([unit(d) for d in batch.documents], dtype=torch.float64),
        torch.tensor(batch.positive),
        masked,
        torch.tensor(batch.weights, dtype=torch.float64),
        TEMPERATURE,
    )


@st.composite
def sets_of_examples(draw: st.DrawFn) -> list[TrainingExample]:
    """Few texts and queries, so that equal texts and shared queries are common."""
    texts = [f"text {i}" for i in range(6)]
    examples = []
    for number in range(draw(st.integers(2, 8))):
        positive = draw(st.sampled_from(texts))
        others = [text for text in texts if text != positive]
        negatives = draw(st.lists(st.sampled_from(others), max_size=4, unique=True))
        examples.append(
            example(
                number,
                query=draw(st.sampled_from(["a", "A", "b", "c", "d"])),
                positive_text=positive,
                negatives=tuple((text, text) for text in negatives),
                weight=draw(st.floats(0.1, 2.0)),
            )
        )
    return examples


@settings(max_examples=80, deadline=None)
@given(sets_of_examples(), st.integers(1, 8))
def test_every_batch_has_the_loss_of_the_reference(
    examples: list[TrainingExample], size: int
) -> None:
    by_id = {e.pair_id: e for e in examples}
    for batch in batching.epoch(examples, size=size, negatives=99, seed=1, number=0):
        group = [by_id[pair_id] for pair_id in batch.pair_ids]

        assert ours(batch).item() == pytest.approx(reference(group, examples), rel=1e-9, abs=1e-12)


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, documents = (
        torch.nn.functional.normalize(
            torch.randn(n, DIM, generator=generator, dtype=torch.float64), dim=1
        ).requires_grad_()
        for n in (4, 9)
    )
    masked = torch.rand(4, 9, generator=generator) < 0.3
    weights = torch.tensor([0.5, 1.0, 1.5, 1.0], dtype=torch.float64)

    def loss(q: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return weighted_info_nce(q, d, torch.tensor([0, 1, 2, 3]), masked, weights, TEMPERATURE)

    assert torch.autograd.gradcheck(loss, (queries, documents))


def test_a_masked_document_gets_no_gradient_from_the_query() -> None:
    queries = torch.eye(2, DIM, dtype=torch.float64)
    documents = torch.ones(3, DIM, dtype=torch.float64, requires_grad=True)
    masked = torch.tensor([[True, True, True], [False, True, True]])

    loss = weighted_info_nce(
        queries, documents, torch.tensor([0, 1]), masked, torch.ones(2).double(), 1.0
    )
    loss.backward()  # type: ignore[no-untyped-call]

    assert documents.grad is not None
    assert documents.grad[2].abs().sum() == 0
    assert documents.grad[0].abs().sum() > 0


def test_without_negatives_the_loss_is_zero() -> None:
    one = torch.eye(1, DIM)

    loss = weighted_info_nce(
        one, one, torch.tensor([0]), torch.tensor([[True]]), torch.ones(1), 0.05
    )

    assert loss.item() == 0.0
