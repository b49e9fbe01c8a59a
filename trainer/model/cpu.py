"""What makes encoding and training in bfloat16 faster on a CPU; the vectors stay the same.

Two things, each used where it fits:

- *Linear layers* (encoding). torch brings their weights into the order that oneDNN's kernels read
  at every call, and a GELU behind a layer reads and writes once more what the layer gave: together
  a tenth to a seventh of the time. The operator that torch's own compiler emits for frozen weights
  does the former once and the latter within the product, before it is rounded. It
  (``torch.ops.mkldnn``) is not part of torch's documented interface. To compile the model would do
  as much, but takes a C++ compiler on the machine.
- *Attention* of plain matrix products (encoding and training). torch's fused kernel (2.15)
  multiplies piece by piece, in products too small for a processor without AMX. Forward, over few
  texts at a time, plain products take two thirds to three quarters of its time; backward it takes
  three to eleven times as long as they do, a quarter of a whole step of training. They keep the
  scores of a layer, which texts of 256 tokens can afford.
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
"""Smallest cosine between a text's vectors of the plain and of the faster model."""

_SAMPLE = (
    "when does the ferry leave",
    "Ferries to the islands leave from the old harbour at nine in the morning, at noon and at six "
    "in the evening; in winter the last one is at four. Tickets are sold on board and at the kiosk "
    "beside the lighthouse, where bicycles can be hired as well.",
)

_ROWS = 4096
"""Tokens at once that the weights are ordered for; others are computed as well."""

_SHORT = 32
"""Tokens below which a call of the fused kernel costs less than the several of plain products."""

_BLOCK_BYTES = 2**21
"""Scores at once: with more, they leave the caches between two products."""


def optimize(model: "SentenceTransformer") -> "SentenceTransformer | None":
    """Make ``model`` faster on this CPU; it can only encode afterwards.

    Args:
        model: transformers in bfloat16 on a CPU, in no use yet. It is changed.

    Returns:
        ``model``, unchanged where nothing speeds it up; ``None`` if it gave other vectors
        afterwards, which is logged. Then it must not be used any more.
    """
    if not _fits(model):
        return model
    expected = _vectors(model)
    try:
        for transformer in transformers_of(model):
            if packs_linear_layers():
                pack(transformer.model)
            if not torch.cpu._is_amx_tile_supported():
                # With AMX the fused kernel has larger products; there nothing was measured.
                _attend_by(IN_BLOCKS, transformer.model)
        cosine = float((_vectors(model) * expected).sum(1).min())
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        log.warning("encoding without the CPU's speed-up", error=repr(error))
        return None
    if not cosine >= _SAME:
        log.warning("encoding without the CPU's speed-up", smallest_cosine=cosine)
        return None
    return model


@contextmanager
def training_attention(model: "SentenceTransformer") -> Iterator[None]:
    """Let ``model`` attend in the way that trains fastest where its weights are."""
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
    """Whether this torch has the operator and this processor gains by it.

    On other processors than x86-64 it was never seen.
    """
    operators = torch.ops.mkldnn
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(operators, n) for n in ("_reorder_linear_weight", "_linear_pointwise"))
    )


def pack(module: Any) -> None:
    """Replace the linear layers within ``module``, which is in bfloat16."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        elif _feeds_gelu(child):
            child.dense = PackedLinear(child.dense, gelu=True)
            child.intermediate_act_fn = nn.Identity()
        else:
            pack(child)


class PackedLinear(nn.Module):
    """A linear layer with ordered weights, and GELU behind it if asked for.

    Attributes:
        weight: type and shape of the weights alone, for code that asks a layer for them.
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


def _feeds_gelu(module: Any) -> bool:
    """Whether it is the inner layer of a block as BERT and its kin have it."""
    return type(getattr(module, "dense", None)) is nn.Linear and isinstance(
        getattr(module, "intermediate_act_fn", None), GELUActivation
    )


def _attend_by(name: str, model: Any) -> None:
    """Set the attention function of a transformer, if its family lets one choose."""
    with quiet():
        model.set_attn_implementation(name)


def _fits(model: "SentenceTransformer") -> bool:
    device = next(model.parameters()).device
    return device.type == "cpu" and computes_in_bfloat16(device)


def _vectors(model: "SentenceTransformer") -> Any:
    """Of a few texts of different lengths, as queries and as documents."""
    options: dict[str, Any] = {"show_progress_bar": False, "normalize_embeddings": True}
    return np.concatenate(
        [encode(list(_SAMPLE), **options) for encode in (model.encode_query, model.encode_document)]
    )


for name, function in ((MATRIX_PRODUCTS, matrix_products), (IN_BLOCKS, matrix_products_in_blocks)):
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, eager_mask)
