"""Our attention beside torch's, on both of the architectures that differ in it."""

from pathlib import Path

import pytest
import torch

from schemas.runs import TrainingConfig
from tests.tiny_model import write_tiny_model, write_tiny_qwen3
from tests.trainer.labelled import example
from trainer.fit import finetune
from trainer.model import attention
from trainer.model.encoder import Encoder
from trainer.model.precision import computes_in_bfloat16

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


@pytest.mark.parametrize("block", [1, 2_500 * 8, 1 << 30], ids=["fused", "by one", "all"])
def test_in_blocks_vectors_are_those_of_the_fused_kernel(
    model: Encoder, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    rows = [list(range(5, 5 + length)) for length in (33, 35, 40, 38)]
    with torch.inference_mode():
        expected = model.forward(rows), model.forward(rows[:1]), model.forward([[7, 8]])

        monkeypatch.setattr(attention, "_BLOCK_BYTES", block)
        model.model.set_attn_implementation(attention.IN_BLOCKS)

        given = model.forward(rows), model.forward(rows[:1]), model.forward([[7, 8]])
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-12)


def test_without_a_mask_all_tokens_are_attended_to() -> None:
    torch.manual_seed(5)
    query, key, value = torch.randn(3, 2, 4, 40, 8, dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)

    given, _ = attention.matrix_products_in_blocks(None, query, key, value, None)

    torch.testing.assert_close(given, expected.transpose(1, 2))


@pytest.mark.parametrize(
    ("in_bfloat16", "amx", "used"),
    [(True, False, attention.IN_BLOCKS), (True, True, "sdpa"), (False, False, "sdpa")],
)
def test_it_is_used_to_encode_in_bfloat16_on_a_cpu_without_amx(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, in_bfloat16: bool, amx: bool, used: str
) -> None:
    monkeypatch.setattr(attention, "computes_in_bfloat16", lambda device: in_bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    attention.for_encoding(encoder.model)
    assert encoder.model.config._attn_implementation == used


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
