"""CPU optimisations of encoding and training in bfloat16; the vectors stay the same.

- *Linear layers* (encoding). At every call torch reorders the weights for oneDNN's kernels, and a
  following GELU reads and writes the layer's output once more: together a tenth to a seventh of the
  time. The operator that torch's compiler emits for frozen weights reorders them once and fuses the
  GELU into the product, before rounding. It (``torch.ops.mkldnn``) is not part of torch's
  documented interface. Compiling the model has the same effect but needs a C++ compiler.
- *Attention* with plain matrix products (encoding and training). torch's fused kernel (2.15) works
  on blocks that are too small for a processor without AMX. In the forward pass, over few texts at a
  time, plain products take two thirds to three quarters of its time; in the backward pass the fused
  kernel takes three to eleven times as long, a quarter of a training step. Plain products keep a
  layer's scores in memory, which is affordable for texts of 256 tokens.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import GELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from trainer.model.loading import computes_in_bfloat16, quiet, transformers_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = structlog.get_logger(__name__)

MATRIX_PRODUCTS = "matrix_products"
IN_BLOCKS = "matrix_products_in_blocks"
"""Attention functions of transformers that this module registers."""

_SAME = 0.9999
"""Smallest accepted cosine between a text's vectors of the plain and the optimised model."""

_SAMPLE = (
    "when does the ferry leave",
    "Ferries to the islands leave from the old harbour at nine in the morning, at noon and at six "
    "in the evening; in winter the last one is at four. Tickets are sold on board and at the kiosk "
    "beside the lighthouse, where bicycles can be hired as well.",
)

_ROWS = 4096
"""Number of tokens for which the weights are reordered; other numbers work as well."""

_SHORT = 32
"""Below this length one call of the fused kernel is faster than several plain products."""

_BLOCK_BYTES = 2**21
"""Size of a block of scores: larger ones exceed the caches between two products."""


def optimize(model: "SentenceTransformer") -> "SentenceTransformer | None":
    """Optimise ``model`` in place for encoding on this CPU; it cannot train afterwards.

    Args:
        model: transformers in bfloat16 on a CPU, not in use yet.

    Returns:
        ``model``, unchanged if no optimisation applies; ``None`` if its vectors changed, which is
        logged. Then it must not be used any more.
    """
    if not _fits(model):
        return model
    expected = _vectors(model)
    try:
        for transformer in transformers_of(model):
            if packs_linear_layers():
                pack(transformer.model)
            if not torch.cpu._is_amx_tile_supported():
                # With AMX the fused kernel uses larger blocks; that was not measured.
                _attend_by(IN_BLOCKS, transformer.model)
        cosine = float((_vectors(model) * expected).sum(1).min())
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        log.warning("encoding without CPU optimisations", error=repr(error))
        return None
    if not cosine >= _SAME:
        log.warning("encoding without CPU optimisations", smallest_cosine=cosine)
        return None
    return model


@contextmanager
def training_attention(model: "SentenceTransformer") -> Iterator[None]:
    """Use the attention function that trains fastest on the model's device."""
    found = [module.model for module in transformers_of(model)] if _fits(model) else []
    before = [inner.config._attn_implementation for inner in found]
    for inner in found:
        _attend_by(MATRIX_PRODUCTS, inner)
    try:
        yield
    finally:
        for inner, name in zip(found, before, strict=True):
            _attend_by(name, inner)


def packs_linear_layers() -> bool:
    """Whether torch has the operator and the processor is x86-64, where it was measured."""
    operators = torch.ops.mkldnn
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(operators, n) for n in ("_reorder_linear_weight", "_linear_pointwise"))
    )


def pack(module: Any) -> None:
    """Replace the linear layers in ``module``, which is in bfloat16."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        elif _feeds_gelu(child):
            child.dense = PackedLinear(child.dense, gelu=True)
            child.intermediate_act_fn = nn.Identity()
        else:
            pack(child)


class PackedLinear(nn.Module):
    """A linear layer with reordered weights, optionally fused with a GELU.

    Attributes:
        weight: a meta tensor with dtype and shape of the weights.
    """

    def __init__(self, layer: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.weight = weight.to("meta")
        self._ordered = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._behind, self._algorithm = ("gelu", "none") if gelu else ("none", "")

    def forward(self, states: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        given: Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self._ordered, self._bias, self._behind, [], self._algorithm
        )
        return given


def matrix_products(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers, without dropout.

    Args:
        module: unused.
        query: (n, heads, length, dim).
        key: (n, heads or a divisor of it, length, dim).
        value: same shape as ``key``.
        attention_mask: added to the scores: 0, or a large negative number.
        scaling: of the scores; by default 1/√dim.

    Returns:
        (n, length, heads, dim), and ``None`` for the weights.
    """
    key, value = _of_each_head(query, key, value)
    scores = torch.matmul(query * _scale(query, scaling), key.transpose(-1, -2))
    if attention_mask is not None:
        # A float32 mask would promote the scores to float32, with twice the memory.
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
    """:func:`matrix_products` without gradients, in blocks of texts whose scores fit into caches.

    The kernel depends on the padded length alone, so a text's vector does not depend on the batch.
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


def _feeds_gelu(module: Any) -> bool:
    """Whether it is the intermediate layer of a block of BERT or a similar model."""
    return type(getattr(module, "dense", None)) is nn.Linear and isinstance(
        getattr(module, "intermediate_act_fn", None), GELUActivation
    )


def _attend_by(name: str, model: Any) -> None:
    """Set the attention function of a transformer, if its family supports that."""
    with quiet():
        model.set_attn_implementation(name)


def _fits(model: "SentenceTransformer") -> bool:
    device = next(model.parameters()).device
    return device.type == "cpu" and computes_in_bfloat16(device)


def _vectors(model: "SentenceTransformer") -> Any:
    """Vectors of sample texts of different lengths, as queries and as documents."""
    options: dict[str, Any] = {"show_progress_bar": False, "normalize_embeddings": True}
    return np.concatenate(
        [encode(list(_SAMPLE), **options) for encode in (model.encode_query, model.encode_document)]
    )


for name, function in ((MATRIX_PRODUCTS, matrix_products), (IN_BLOCKS, matrix_products_in_blocks)):
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, eager_mask)
