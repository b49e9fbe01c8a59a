"""Our attention beside torch's, on both of the architectures that differ in it."""

from pathlib import Path

import pytest
import torch

from schemas.runs import TrainingConfig
from tests.tiny_model import write_tiny_model, write_tiny_qwen3
from tests.trainer.labelled import example
from trainer import attention, finetune
from trainer.encoder import Encoder
from trainer.precision import computes_in_bfloat16

TEXTS = ["one", "another text, which is longer", "x" * 30]


@pytest.fixture(params=[write_tiny_model, write_tiny_qwen3], ids=["bert", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Encoder:
    """In float64. The Qwen3 is causal, and its heads share keys."""
    encoder = Encoder.load(request.param(tmp_path), precision="float32", device="cpu")
    encoder.model.double().requires_grad_(True)
    return encoder


def vectors_and_gradients(encoder: Encoder) -> tuple[torch.Tensor, list[torch.Tensor]]:
    encoder.model.zero_grad()
    vectors = encoder.forward(encoder.tokens(TEXTS))
    vectors[:, ::3].sum().backward()  # type: ignore[no-untyped-call]
    return vectors, [p.grad.clone() for p in encoder.model.parameters() if p.grad is not None]


def test_vectors_and_gradients_are_those_of_the_fused_kernel(model: Encoder) -> None:
    assert model.model.config._attn_implementation == "sdpa"
    expected = vectors_and_gradients(model)

    model.model.set_attn_implementation(attention.NAME)

    torch.testing.assert_close(vectors_and_gradients(model), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("in_bfloat16", [True, False])
def test_it_is_used_to_train_in_bfloat16_on_a_cpu_and_then_no_more(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, in_bfloat16: bool
) -> None:
    monkeypatch.setattr(attention, "computes_in_bfloat16", lambda device: in_bfloat16)
    with attention.for_training(encoder.model):
        during = encoder.model.config._attn_implementation
    child = finetune.finetune(
        encoder,
        [example(0), example(1)],
        TrainingConfig(
            epochs=1,
            batch=2,
            negatives=0,
            learning_rate=1e-3,
            temperature=0.1,
            max_tokens=32,
            seed=0,
        ),
    ).encoder

    assert during == (attention.NAME if in_bfloat16 else "sdpa")
    for model in (encoder.model, child.model):
        assert model.config._attn_implementation == "sdpa"


def test_a_machine_without_bfloat16_is_told_apart() -> None:
    assert isinstance(computes_in_bfloat16(torch.device("cpu")), bool)
    assert not computes_in_bfloat16(torch.device("meta"))
