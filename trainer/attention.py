"""Attention of plain matrix products, for training on a CPU in bfloat16.

There torch's fused kernel (2.15) is as fast as they are forward, but takes three to eleven times as
long backward, a quarter of a whole step. They keep the scores of a layer, which texts of 256 tokens
can afford.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from trainer.precision import computes_in_bfloat16

NAME = "matrix_products"


@contextmanager
def for_training(model: Any) -> Iterator[None]:
    """Let ``model`` attend in the way that trains fastest where its weights are."""
    device = next(model.parameters()).device
    if device.type != "cpu" or not computes_in_bfloat16(device):
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def matrix_products(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers; dropout is off.

    Args:
        module: unused.
        query: (n, heads, length, dim).
        key: (n, heads or a divisor of them, length, dim).
        value: likewise.
        attention_mask: is added to the scores: 0, or a number that leaves nothing.
        scaling: of the scores; by default 1/√dim.

    Returns:
        (n, length, heads, dim), and no weights.
    """
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (each.repeat_interleave(shared, dim=1) for each in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if attention_mask is not None:
        # In the scores' own type: a float32 mask would make float32 scores, of twice the memory.
        scores = scores + attention_mask.to(scores.dtype)
    return torch.matmul(scores.softmax(-1), value).transpose(1, 2), None


AttentionInterface.register(NAME, matrix_products)
AttentionMaskInterface.register(NAME, eager_mask)
