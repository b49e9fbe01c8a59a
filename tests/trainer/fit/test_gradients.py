from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.runs import TrainingConfig
from tests.trainer.labelled import example
from trainer.fit import finetune, gradients
from trainer.fit.gradients import Text, group_by_length
from trainer.fit.loss import weighted_info_nce
from trainer.model.encoder import Encoder

CONFIG = TrainingConfig(
    epochs=1, batch=6, negatives=2, learning_rate=1e-3, temperature=0.1, max_tokens=48, seed=0
)
EXAMPLES = [
    example(
        i,
        positive_text=f"{'long ' * i} text {i}",
        negatives=((f"n{i}", f"number {i}"), ("n", "shared")),
        weight=0.5 + i / 4,
    )
    for i in range(6)
]


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "computes_in_bfloat16", lambda device: False)


def gradients_of(encoder: Encoder, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    child = encoder.copy()
    child.model.requires_grad_(True)
    config = CONFIG.model_copy(update=changes)
    (batch,) = finetune.plan(EXAMPLES, config)
    loss = gradients.backward(child, batch, config)
    found = {name: p.grad for name, p in child.model.named_parameters() if p.grad is not None}
    return loss, found


def test_gradients_are_those_of_the_loss_over_one_padded_batch(encoder: Encoder) -> None:
    loss, found = gradients_of(encoder)

    child = encoder.copy()
    (batch,) = finetune.plan(EXAMPLES, CONFIG)
    queries, documents = (
        child.forward(child.tokenize(texts, kind, CONFIG.max_tokens), kind)
        for texts, kind in ((batch.queries, "query"), (batch.documents, "document"))
    )
    expected = weighted_info_nce(
        queries,
        documents,
        torch.tensor(batch.positive),
        torch.zeros(6, len(batch.documents), dtype=torch.bool),
        torch.tensor(batch.weights),
        CONFIG.temperature,
    )
    expected.backward()  # type: ignore[no-untyped-call]

    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in child.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_gradcache_gives_the_same_gradients(encoder: Encoder) -> None:
    loss, found = gradients_of(encoder, tokens_at_once=128)

    bounded_loss, bounded = gradients_of(encoder, tokens_at_once=128, tokens_kept=0)

    assert bounded_loss == loss
    assert bounded.keys() == found.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(bounded[name], gradient, rtol=1e-3, atol=1e-6)
    assert any(gradient.abs().max() > 1e-3 for gradient in found.values())


texts = st.builds(Text, st.sampled_from(["query", "document"]), st.just(()), st.integers(1, 600))


@given(st.lists(texts, max_size=80), st.integers(1, 4096))
def test_groups_hold_every_text_once_by_kind_within_the_limit(
    texts: list[Text], bound: int
) -> None:
    order = sorted(range(len(texts)), key=lambda index: (texts[index].kind, texts[index].length))
    groups = group_by_length(order, texts, bound)

    assert sorted(index for group in groups for index in group) == list(range(len(texts)))
    for group in groups:
        assert len({texts[index].kind for index in group}) == 1
        longest = max(texts[index].length for index in group)
        assert len(group) == 1 or longest * len(group) <= bound
