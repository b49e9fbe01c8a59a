"""``gradients.backward`` in float64: against a plain reference, and against finite differences.

The reference knows texts instead of matrices: it encodes one unpadded text at a time and sums in
loops, over the documents that stand against a query (docs/training.md).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from schemas.runs import TrainingConfig
from tests.trainer.labelled import example
from trainer.data.draws import normalize_query
from trainer.fit import batching, gradients
from trainer.fit.batching import Batch
from trainer.model.encoder import Encoder

CONFIG = TrainingConfig(
    epochs=1, batch=8, negatives=3, learning_rate=1e-3, temperature=0.2, max_tokens=48, seed=3
)
EXAMPLES = [
    # Two queries with two positives each, so that a known positive is in a batch with its query;
    # a text that is the positive of two queries; a negative that is another's positive.
    example(0, query="Ferry times", positive_text="ferries leave at nine", weight=0.4),
    example(1, query="ferry  TIMES", positive_text="the harbour's timetable", weight=1.7),
    example(2, query="old boats", positive_text="the harbour's timetable", weight=1.2),
    example(3, query="old boats", positive_text="a list of boats " * 3, weight=0.9),
    example(
        4,
        query="candles",
        positive_text="wax",
        negatives=(("a", "ferries leave at nine"), ("b", "a candle"), ("c", "a lamp")),
        weight=0.7,
    ),
    example(
        5,
        query="dragons, and where they live",
        positive_text="caves",
        negatives=(("b", "a candle"), ("d", "no dragon at all")),
        weight=2.1,
    ),
]
WAYS: dict[str, dict[str, Any]] = {
    "kept": {},
    "encoded twice": {"tokens_kept": 0, "tokens_at_once": 96},
    "in part kept": {"tokens_kept": 200, "tokens_at_once": 96},
}


GROUPS = 5
"""Number of groups of the batch, at 96 tokens each."""


@pytest.fixture(params=WAYS)
def config(request: pytest.FixtureRequest) -> TrainingConfig:
    """Each way to bound memory."""
    return CONFIG.model_copy(update=WAYS[request.param])


@pytest.fixture
def exact(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """A tiny encoder in float64."""
    monkeypatch.setattr(gradients, "computes_in_bfloat16", lambda device: False)
    child = encoder.copy()
    child.model.double().requires_grad_(True)
    return child


@pytest.fixture
def layers(exact: Encoder) -> list[str]:
    """One entry per forward pass of a layer."""
    ran: list[str] = []
    for layer in exact.model[0].model.encoder.layer:
        layer.attention.register_forward_hook(lambda *_: ran.append("layer"))
    return ran


@pytest.fixture
def batch() -> Batch:
    """One with masked documents, shared documents and unequal weights."""
    batches = [
        batch
        for number in range(8)
        for batch in batching.epoch(EXAMPLES, size=8, negatives=3, seed=3, number=number)
        if len(batch.queries) == 4
    ]
    found = max(batches, key=lambda batch: sum(map(len, batch.masked)))
    assert sum(map(len, found.masked)) >= 2
    return found


def vector(encoder: Encoder, text: str) -> Tensor:
    """Mean pooling of one text without padding."""
    (ids,) = encoder.tokenize([text], "query")
    states: Tensor = encoder.model[0].model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    mean = sum(states) / len(states)
    assert isinstance(mean, Tensor)
    return mean / mean.square().sum().sqrt()


def reference(encoder: Encoder, batch: Batch) -> Tensor:
    """The formula in :mod:`trainer.fit.loss`, summed over the pairs of the batch."""
    known = {
        normalize_query(query): {
            e.positive_text for e in EXAMPLES if normalize_query(e.query) == normalize_query(query)
        }
        for query in batch.queries
    }
    vectors = {text: vector(encoder, text) for text in {*batch.queries, *batch.documents}}
    total = torch.zeros((), dtype=torch.float64)
    for query, column, weight in zip(batch.queries, batch.positive, batch.weights, strict=True):
        own = batch.documents[column]
        against = [text for text in batch.documents if text not in known[normalize_query(query)]]
        scores = {
            text: vectors[query].dot(vectors[text]) / CONFIG.temperature for text in [own, *against]
        }
        denominator = sum(score.exp() for score in scores.values())
        assert isinstance(denominator, Tensor)
        total = total + weight * (scores[own] - denominator.log())
    return -total


def gradient(encoder: Encoder) -> Tensor:
    """Of all weights, in one row; the model's unused pooler has none."""
    rows = [p.grad for p in encoder.model.parameters() if p.grad is not None]
    return torch.cat([row.flatten() for row in rows])


def test_loss_and_gradients_are_those_of_the_reference(
    exact: Encoder, batch: Batch, config: TrainingConfig, layers: list[str]
) -> None:
    loss = gradients.backward(exact, batch, config)
    found = gradient(exact)
    # Of each group: without gradients unless kept, and with them.
    groups = 2 if config.tokens_at_once > 96 else GROUPS
    kept = {0: 0, 200: 3}.get(config.tokens_kept, groups)
    assert len(layers) == 2 * (groups + (groups - kept))

    exact.model.zero_grad()
    expected = reference(exact, batch) / len(batch.queries)
    expected.backward()  # type: ignore[no-untyped-call]

    assert loss == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(found, gradient(exact), rtol=1e-9, atol=1e-12)
    assert found.norm() > 0.01


@contextmanager
def moved(encoder: Encoder, direction: list[Tensor], by: float) -> Iterator[None]:
    """Shift the weights a little in ``direction`` within the block."""
    for sign in (1, -1):
        with torch.no_grad():
            for weights, part in zip(encoder.model.parameters(), direction, strict=True):
                weights.add_(part, alpha=sign * by)
        if sign == 1:
            yield


@pytest.mark.parametrize("seed", range(3))
def test_gradients_agree_with_finite_differences(
    exact: Encoder, batch: Batch, config: TrainingConfig, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    direction = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in exact.model.parameters()
    ]
    gradients.backward(exact, batch, config)
    slope = math.fsum(
        float((p.grad * part).sum())
        for p, part in zip(exact.model.parameters(), direction, strict=True)
        if p.grad is not None
    )

    step = 1e-6
    losses = []
    for by in (step, -step):
        with moved(exact, direction, by):
            losses.append(gradients.backward(exact, batch, config))

    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert abs(slope) > 1e-3
