"""Attention of plain matrix products, on a CPU in bfloat16.

There torch's fused kernel (2.15) multiplies piece by piece, in products too small for a processor
without AMX. Forward, over few texts at a time, plain products take two thirds to three quarters of
its time; backward it takes three to eleven times as long as they do, a quarter of a whole step of
training. They keep the scores of a layer, which texts of 256 tokens can afford.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from trainer.model.precision import computes_in_bfloat16

NAME = "matrix_products"
IN_BLOCKS = "matrix_products_in_blocks"

_SHORT = 32
"""Tokens below which a call of the fused kernel costs less than the several of plain products."""

_BLOCK_BYTES = 2**21
"""Scores at once: with more, they leave the caches between two products."""


@contextmanager
def for_training(model: Any) -> Iterator[None]:
    """Let ``model`` attend in the way that trains fastest where its weights are."""
    if not _on_such_a_cpu(model):
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def for_encoding(model: Any) -> None:
    """Let ``model``, in bfloat16, attend in the way that encodes fastest on this CPU.

    With AMX the fused kernel has larger products; there nothing was measured, and it stays.
    """
    if _on_such_a_cpu(model) and not torch.cpu._is_amx_tile_supported():
        model.set_attn_implementation(IN_BLOCKS)


def _on_such_a_cpu(model: Any) -> bool:
    device = next(model.parameters()).device
    return device.type == "cpu" and computes_in_bfloat16(device)


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
    key, value = _of_each_head(query, key, value)
    scores = torch.matmul(query * _scale(query, scaling), key.transpose(-1, -2))
    if attention_mask is not None:
        # In the scores' own type: a float32 mask would make float32 scores, of twice the memory.
        scores = scores + attention_mask.to(scores.dtype)
    return torch.matmul(scores.softmax(-1), value).transpose(1, 2), None


def matrix_products_in_blocks(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """:func:`matrix_products` without gradients, as many texts at a time as caches hold scores of.

    Which kernel computes a text depends on its padded length alone, and so does its vector.
    """
    texts, heads, length, _ = query.shape
    at_once = _BLOCK_BYTES // (heads * length * key.shape[2] * query.element_size())
    if length < _SHORT or at_once == 0:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    key, value = _of_each_head(query, key, value)
    attended = query.new_empty(texts, length, heads, value.shape[-1])
    for start in range(0, texts, at_once):
        block = slice(start, start + at_once)
        mask = None if attention_mask is None else attention_mask[block]
        attended[block] = _attend(
            query[block], key[block], value[block], mask, _scale(query, scaling)
        )
    return attended, None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    texts, heads, length, _ = query.shape
    scores = query.new_empty(texts, heads, length, key.shape[2])
    if mask is None:
        scores.zero_()
    else:
        scores.copy_(mask)
    flat = scores.flatten(0, 1)
    torch.baddbmm(flat, query.flatten(0, 1), key.flatten(0, 1).mT, alpha=scale, out=flat)
    torch.softmax(flat, -1, out=flat)
    attended = torch.bmm(flat, value.flatten(0, 1))
    return attended.view(texts, heads, length, -1).transpose(1, 2)


def _of_each_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values, repeated where several heads of the query share them."""
    shared = query.shape[1] // key.shape[1]
    if shared == 1:
        return key, value
    return key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)


def _scale(query: Tensor, scaling: float | None) -> float:
    return query.shape[-1] ** -0.5 if scaling is None else scaling


for name, function in ((NAME, matrix_products), (IN_BLOCKS, matrix_products_in_blocks)):
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, eager_mask)
