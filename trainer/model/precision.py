"""bfloat16: where it is faster, and the copy of a model that encodes in it."""

import copy
from typing import TYPE_CHECKING, Any, Literal

import torch

from trainer.model.loading import transformers_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Precision = Literal["auto", "float32", "bfloat16"]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there, and not merely emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def encodes_in_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether texts are encoded in bfloat16, rather than in float32."""
    return precision == "bfloat16" or (precision == "auto" and computes_in_bfloat16(device))


def with_own_weights(model: "SentenceTransformer") -> "SentenceTransformer":
    """A copy that shares the tokenizers."""
    shared = [module.processor for module in transformers_of(model)]
    return copy.deepcopy(model, {id(processor): processor for processor in shared})


def bfloat16_copy(model: "SentenceTransformer") -> "SentenceTransformer":
    """A copy for encoding, its transformers in bfloat16 and the small modules behind in float32."""
    found = with_own_weights(model)
    for module in transformers_of(found):
        module.to(torch.bfloat16)
        module.register_forward_hook(_states_to_float32)
    return found.eval()


def _states_to_float32(_: Any, __: Any, features: dict[str, Any]) -> dict[str, Any]:
    return features | {"token_embeddings": features["token_embeddings"].float()}
