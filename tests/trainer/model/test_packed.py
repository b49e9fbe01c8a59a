"""Packed layers beside torch's own, and in both architectures whose blocks differ."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from tests.tiny_model import write_tiny_model, write_tiny_qwen3
from trainer.model import packed
from trainer.model.encoder import Encoder
from trainer.model.packed import PackedLinear

pytestmark = pytest.mark.skipif(
    not packed.available(),
    reason="layers are packed only on an x86-64 processor that computes in bfloat16",
)

TEXTS = ["one", "another text, which is longer", "x y z " * 30]


def layer(*, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(48, 80, bias=bias).to(torch.bfloat16).requires_grad_(False)


def states(*shape: int) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(shape, dtype=torch.bfloat16)


def near(one: torch.Tensor, other: torch.Tensor) -> None:
    # Two orders of summing differ most, relatively, where a sum is next to nothing.
    torch.testing.assert_close(one, other, rtol=0.016, atol=0.001)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 48), (7, 16, 48), (1, 1, 48)])
def test_a_layer_gives_what_torchs_gives(shape: tuple[int, ...], bias: bool) -> None:
    given = states(*shape)
    near(PackedLinear(layer(bias=bias))(given), layer(bias=bias)(given))


def test_states_may_lie_in_any_order() -> None:
    given = states(16, 7, 48).transpose(0, 1)
    near(PackedLinear(layer())(given), layer()(given))


def test_gelu_is_taken_before_rounding() -> None:
    given = states(300, 48)
    exact = gelu(layer().float()(given.float()))

    within = (PackedLinear(layer(), gelu=True)(given).float() - exact).abs().mean()
    behind = (gelu(layer()(given)).float() - exact).abs().mean()

    assert within < behind < 0.01


def test_a_layer_tells_type_and_shape_of_its_weights() -> None:
    weight = PackedLinear(layer()).weight
    assert (weight.dtype, weight.shape) == (torch.bfloat16, (80, 48))


@pytest.mark.parametrize("write", [write_tiny_model, write_tiny_qwen3], ids=["bert", "qwen3"])
def test_a_packed_model_encodes_as_before(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    vectors = Encoder.load(folder, precision="bfloat16", device="cpu").encode_documents(TEXTS)
    with monkeypatch.context() as without:
        without.setattr(packed, "available", lambda: False)
        plain = Encoder.load(folder, precision="bfloat16", device="cpu").encode_documents(TEXTS)
    exact = Encoder.load(folder, precision="float32", device="cpu").encode_documents(TEXTS)

    assert (vectors * plain).sum(1).min() > 0.999
    assert (vectors * exact).sum(1).min() > 0.999
    assert not np.array_equal(vectors, exact)


@pytest.mark.parametrize("write", [write_tiny_model, write_tiny_qwen3], ids=["bert", "qwen3"])
def test_no_layer_of_a_model_is_left_out(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = Encoder.load(write(tmp_path), device="cpu").model.to(torch.bfloat16)
    before = sum(type(module) is nn.Linear for module in model.modules())

    packed.pack(model)

    layers = [type(module) for module in model.modules()]
    assert layers.count(PackedLinear) == before > 0
    assert nn.Linear not in layers


def test_a_model_goes_on_training_after_it_has_encoded(tmp_path: Path) -> None:
    encoder = Encoder.load(write_tiny_model(tmp_path), precision="bfloat16", device="cpu")
    encoder.encode_documents(TEXTS)
    assert PackedLinear not in [type(module) for module in encoder.model.modules()]
    encoder.model.requires_grad_(True)
    encoder.forward(encoder.tokens(TEXTS)).sum().backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None for p in encoder.model.parameters())
