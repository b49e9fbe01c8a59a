"""CPU optimisations against the plain model, on two architectures with different kernels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from torch import nn
from torch.nn.functional import gelu

from schemas.runs import TrainingConfig
from tests.tiny_model import write_tiny_model, write_tiny_qwen3
from tests.trainer.labelled import example
from trainer.fit import finetune
from trainer.model import cpu
from trainer.model.cpu import PackedLinear
from trainer.model.encoder import Encoder
from trainer.model.loading import computes_in_bfloat16

TEXTS = ["one", "another text, which is longer", "x y z " * 30]

packing = pytest.mark.skipif(
    not (cpu.packs_linear_layers() and computes_in_bfloat16(torch.device("cpu"))),
    reason="layers are packed only on an x86-64 processor that computes in bfloat16",
)
architectures = pytest.mark.parametrize(
    "write", [write_tiny_model, write_tiny_qwen3], ids=["bert", "qwen3"]
)

Write = Callable[[Path], Path]


def transformer(encoder: Encoder) -> nn.Module:
    found: nn.Module = encoder.model[0].model  # type: ignore[union-attr, assignment]
    return found


def attention(encoder: Encoder) -> str:
    return str(transformer(encoder).config._attn_implementation)  # type: ignore[union-attr]


def in_float64(folder: Path) -> Encoder:
    """The Qwen3 is causal, and its heads share keys."""
    encoder = Encoder.load(folder, precision="float32", device="cpu")
    encoder.model.double().requires_grad_(True)
    return encoder


def vectors_and_gradients(encoder: Encoder) -> tuple[torch.Tensor, list[torch.Tensor]]:
    encoder.model.zero_grad()
    vectors = encoder.forward(encoder.tokenize(TEXTS, "query"), "query")
    vectors[:, ::3].sum().backward()  # type: ignore[no-untyped-call]
    return vectors, [p.grad.clone() for p in encoder.model.parameters() if p.grad is not None]


@architectures
def test_vectors_and_gradients_are_those_of_the_fused_kernel(write: Write, tmp_path: Path) -> None:
    encoder = in_float64(write(tmp_path))
    assert attention(encoder) == "sdpa"
    expected = vectors_and_gradients(encoder)

    transformer(encoder).set_attn_implementation(cpu.MATRIX_PRODUCTS)  # type: ignore[operator]

    torch.testing.assert_close(vectors_and_gradients(encoder), expected, rtol=1e-9, atol=1e-12)


@architectures
@pytest.mark.parametrize("block", [1, 2_500 * 8, 1 << 30], ids=["fused", "by one", "all"])
def test_vectors_in_blocks_are_those_of_the_fused_kernel(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    encoder = in_float64(write(tmp_path))
    rows = [list(range(5, 5 + length)) for length in (33, 35, 40, 38)]

    def vectors() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [encoder.forward(some, "query") for some in (rows, rows[:1], [[7, 8]])]

    expected = vectors()
    monkeypatch.setattr(cpu, "_BLOCK_BYTES", block)
    transformer(encoder).set_attn_implementation(cpu.IN_BLOCKS)  # type: ignore[operator]

    torch.testing.assert_close(vectors(), expected, rtol=1e-9, atol=1e-12)


def test_without_a_mask_all_tokens_have_attention() -> None:
    torch.manual_seed(5)
    query, key, value = torch.randn(3, 2, 4, 40, 8, dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)

    found, _ = cpu.matrix_products_in_blocks(None, query, key, value, None)

    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize(
    ("in_bfloat16", "amx", "used"),
    [(True, False, cpu.IN_BLOCKS), (True, True, "sdpa"), (False, False, "sdpa")],
)
def test_encoding_in_bfloat16_uses_blocks_on_a_cpu_without_amx(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, in_bfloat16: bool, amx: bool, used: str
) -> None:
    monkeypatch.setattr(cpu, "computes_in_bfloat16", lambda device: in_bfloat16)
    monkeypatch.setattr(cpu, "packs_linear_layers", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    assert cpu.optimize(encoder.model) is encoder.model

    assert attention(encoder) == used


@pytest.mark.parametrize("in_bfloat16", [True, False])
def test_only_training_in_bfloat16_on_a_cpu_uses_matrix_products(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, in_bfloat16: bool
) -> None:
    monkeypatch.setattr(cpu, "computes_in_bfloat16", lambda device: in_bfloat16)
    with cpu.training_attention(encoder.model):
        during = attention(encoder)
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

    assert during == (cpu.MATRIX_PRODUCTS if in_bfloat16 else "sdpa")
    assert attention(encoder) == attention(child) == "sdpa"


def test_a_device_without_bfloat16_is_recognised() -> None:
    assert isinstance(computes_in_bfloat16(torch.device("cpu")), bool)
    assert not computes_in_bfloat16(torch.device("meta"))


def layer(*, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(48, 80, bias=bias).to(torch.bfloat16).requires_grad_(False)


def states(*shape: int) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(shape, dtype=torch.bfloat16)


def near(one: torch.Tensor, other: torch.Tensor) -> None:
    # The relative difference of two summation orders is largest for sums near zero.
    torch.testing.assert_close(one, other, rtol=0.016, atol=0.001)


@packing
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 48), (7, 16, 48), (1, 1, 48)])
def test_a_packed_layer_equals_torchs_layer(shape: tuple[int, ...], bias: bool) -> None:
    given = states(*shape)
    near(PackedLinear(layer(bias=bias))(given), layer(bias=bias)(given))


@packing
def test_inputs_may_have_any_memory_layout() -> None:
    given = states(16, 7, 48).transpose(0, 1)
    near(PackedLinear(layer())(given), layer()(given))


@packing
def test_gelu_is_applied_before_rounding() -> None:
    given = states(300, 48)
    exact = gelu(layer().float()(given.float()))

    within = (PackedLinear(layer(), gelu=True)(given).float() - exact).abs().mean()
    behind = (gelu(layer()(given)).float() - exact).abs().mean()

    assert within < behind < 0.01


@packing
def test_a_packed_layer_has_dtype_and_shape_of_its_weights() -> None:
    weight = PackedLinear(layer()).weight
    assert (weight.dtype, weight.shape) == (torch.bfloat16, (80, 48))


@packing
@architectures
def test_an_optimised_model_encodes_as_the_plain_one(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    vectors = Encoder.load(folder, precision="bfloat16", device="cpu").encode_documents(TEXTS)
    with monkeypatch.context() as without:
        without.setattr(cpu, "_fits", lambda model: False)
        plain = Encoder.load(folder, precision="bfloat16", device="cpu").encode_documents(TEXTS)
    exact = Encoder.load(folder, precision="float32", device="cpu").encode_documents(TEXTS)

    assert (vectors * plain).sum(1).min() > 0.999
    assert (vectors * exact).sum(1).min() > 0.999
    assert not np.array_equal(vectors, exact)


@packing
@architectures
def test_every_linear_layer_is_packed(write: Write, tmp_path: Path) -> None:
    encoder = Encoder.load(write(tmp_path), device="cpu")
    model = encoder.model.to(torch.bfloat16)
    before = sum(type(module) is nn.Linear for module in model.modules())

    cpu.optimize(model)

    layers = [type(module) for module in model.modules()]
    assert layers.count(PackedLinear) == before > 0
    assert nn.Linear not in layers


def wrong(self: PackedLinear, given: torch.Tensor) -> torch.Tensor:
    return torch.ones(*given.shape[:-1], self.weight.shape[0], dtype=given.dtype)


def broken(self: PackedLinear, given: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no such operator")


@packing
@pytest.mark.parametrize("forward", [wrong, broken])
def test_an_optimisation_that_changes_vectors_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forward: Callable[..., torch.Tensor]
) -> None:
    folder = write_tiny_model(tmp_path)
    exact = Encoder.load(folder, precision="float32", device="cpu").encode_documents(TEXTS)
    monkeypatch.setattr(PackedLinear, "forward", forward)

    with capture_logs() as logged:
        encoder = Encoder.load(folder, precision="bfloat16", device="cpu")
        vectors = encoder.encode_documents(TEXTS)

    assert (vectors * exact).sum(1).min() > 0.999
    assert [line["event"] for line in logged if line["log_level"] == "warning"] == [
        "encoding without CPU optimisations"
    ]


def test_a_model_can_train_after_it_has_encoded(tmp_path: Path) -> None:
    encoder = Encoder.load(write_tiny_model(tmp_path), precision="bfloat16", device="cpu")
    encoder.encode_documents(TEXTS)
    assert PackedLinear not in [type(module) for module in encoder.model.modules()]
    encoder.model.requires_grad_(True)
    vectors = encoder.forward(encoder.tokenize(TEXTS, "query"), "query")
    vectors.sum().backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None for p in encoder.model.parameters())
