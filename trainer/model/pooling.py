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
        (n, dim), L2-normalised, in float32, or in float64 if the states are.
    """
    match pooling:
        case "mean":
            states = _exact(states)
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
        case "cls":
            pooled = _take(states, mask.long().argmax(1))
        case "last":
            pooled = _take(states, mask.shape[1] - 1 - mask.flip(1).long().argmax(1))
        case _:
            assert_never(pooling)
    return torch.nn.functional.normalize(pooled, dim=-1)


def _take(states: Tensor, position: Tensor) -> Tensor:
    rows = torch.arange(states.shape[0], device=states.device)
    return _exact(states[rows, position])


def _exact(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))
