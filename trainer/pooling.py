"""From the vectors of a text's tokens to the vector of the text."""

from typing import Literal, assert_never

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "last"]
"""Mean over the tokens, the first token, or the last one (as decoder models are trained)."""


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool token vectors, padded on either side.

    Args:
        states: (n, length, dim), of any floating dtype.
        mask: (n, length), 1 for a token and 0 for padding; every row has at least one token.
        pooling: how.

    Returns:
        (n, dim) in float32, L2-normalised.
    """
    match pooling:
        case "mean":
            weights = mask.unsqueeze(-1).to(torch.float32)
            pooled = (states.float() * weights).sum(1) / weights.sum(1)
        case "cls":
            pooled = _take(states, mask.long().argmax(1))
        case "last":
            pooled = _take(states, mask.shape[1] - 1 - mask.flip(1).long().argmax(1))
        case _:
            assert_never(pooling)
    return torch.nn.functional.normalize(pooled, dim=-1)


def _take(states: Tensor, position: Tensor) -> Tensor:
    rows = torch.arange(states.shape[0], device=states.device)
    return states[rows, position].float()
