"""Linear layers for encoding in bfloat16 on a CPU.

torch brings the weights of a linear layer into the order that oneDNN's kernels read at every call,
and a GELU behind it reads and writes once more what the layer gave: together a tenth to a seventh
of the time of encoding. The operator that torch's own compiler emits for frozen weights does the
former once and the latter within the product, before it is rounded.

That operator (``torch.ops.mkldnn``) is not part of torch's documented interface: a torch without it
encodes as before. To compile the model would do as much, but takes a C++ compiler on the machine.
"""

import platform
from typing import Any

import torch
from torch import Tensor, nn

from trainer.model.precision import computes_in_bfloat16

_ROWS = 4096
"""Tokens at once that the weights are ordered for; others are computed as well."""


def available() -> bool:
    """Whether this torch has the operator and this processor gains by it.

    On other processors than x86-64 it was never seen.
    """
    operators = torch.ops.mkldnn
    return (
        platform.machine() in ("x86_64", "AMD64")
        and computes_in_bfloat16(torch.device("cpu"))
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(operators, n) for n in ("_reorder_linear_weight", "_linear_pointwise"))
    )


def pack(model: Any) -> None:
    """Replace the linear layers of ``model``, which can only encode afterwards.

    Args:
        model: a transformer in bfloat16 on a CPU, in no use yet.
    """
    if available():
        _pack(model)


class PackedLinear(nn.Module):
    """A linear layer with ordered weights, and GELU behind it if it shall be.

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


def _pack(module: Any) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        elif _goes_through_gelu(child):
            child.dense = PackedLinear(child.dense, gelu=True)
            child.intermediate_act_fn = nn.Identity()
        else:
            _pack(child)


def _goes_through_gelu(module: Any) -> bool:
    """Whether it is the inner layer of a block as BERT and its kin have it."""
    from transformers.activations import GELUActivation

    return type(getattr(module, "dense", None)) is nn.Linear and isinstance(
        getattr(module, "intermediate_act_fn", None), GELUActivation
    )
