"""Loss and gradients of one batch, in bounded memory.

A batch's texts are encoded in groups of like length, which wastes little on padding and changes
nothing in the mathematics. What the backward pass needs of them is kept if it is little. Else
(GradCache: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup") the vectors are computed first without it, the loss gives each vector's gradient, and then
each group is encoded again and takes its share back through the model: a third more work for a
memory that does not grow with the batch. Without dropout both ways give the same gradients.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from schemas.runs import TrainingConfig
from trainer.batching import Batch
from trainer.encoder import Encoder, computes_in_bfloat16, padded
from trainer.loss import weighted_info_nce

TOKENS_AT_ONCE = 4096
"""Padded tokens of one group, at most (or one text)."""

TOKENS_KEPT = 12_288
"""Padded tokens of a batch up to which everything is kept; MiniLM then takes about 2 GiB."""


def backward(encoder: Encoder, batch: Batch, config: TrainingConfig) -> float:
    """Add the gradients of a batch to the encoder's parameters.

    Returns:
        The loss.
    """
    prefixes = encoder.layout
    texts = [prefixes.query_prefix + text for text in batch.queries]
    texts += [prefixes.document_prefix + text for text in batch.documents]
    rows = encoder.tokens(texts, config.max_tokens)
    groups = group_by_length([padded(len(row), encoder.max_tokens) for row in rows])
    if _tokens(rows, groups) <= TOKENS_KEPT:
        vectors = _embed(encoder, rows, groups)
        return _backward(vectors, batch, config)
    with torch.no_grad():
        vectors = _embed(encoder, rows, groups)
    vectors.requires_grad_()
    loss = _backward(vectors, batch, config)
    gradient = vectors.grad
    assert gradient is not None
    for group in groups:
        with _autocast(encoder):
            again = encoder.forward([rows[index] for index in group])
        again.backward(gradient[group])  # type: ignore[no-untyped-call]
    return loss


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of ``lengths`` in groups of like length, shortest first.

    Padded to its longest member, a group has at most :data:`TOKENS_AT_ONCE` tokens.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if groups and lengths[index] * (len(groups[-1]) + 1) <= TOKENS_AT_ONCE:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _tokens(rows: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> int:
    return sum(len(group) * max(len(rows[index]) for index in group) for group in groups)


def _embed(
    encoder: Encoder, rows: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]
) -> Tensor:
    """Vectors in the order of ``rows``."""
    with _autocast(encoder):
        vectors = torch.cat([encoder.forward([rows[i] for i in group]) for group in groups])
    order = torch.tensor([index for group in groups for index in group])
    return vectors[order.argsort().to(vectors.device)]


def _backward(vectors: Tensor, batch: Batch, config: TrainingConfig) -> float:
    """From the vectors of queries and documents on."""
    device, n = vectors.device, len(batch.queries)
    masked = torch.zeros(n, len(batch.documents), dtype=torch.bool)
    for row, columns in enumerate(batch.masked):
        masked[row, list(columns)] = True
    loss = weighted_info_nce(
        vectors[:n],
        vectors[n:],
        torch.tensor(batch.positive, device=device),
        masked.to(device),
        torch.tensor(batch.weights, device=device),
        config.temperature,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _autocast(encoder: Encoder) -> AbstractContextManager[object]:
    # One context a pass: its cache of converted weights must not outlive a pass without gradients.
    device = encoder.device
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bfloat16(device))
