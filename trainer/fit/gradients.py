"""Loss and gradients of one step, in bounded memory, in one process or several.

A batch's texts are encoded in groups of like length, which wastes little on padding and changes
nothing in the mathematics. The loss gives each vector's gradient, and each group takes its share
back through the model. What that needs is kept of as many groups as there shall be memory for; the
others are encoded again (GradCache: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size
under Memory Limited Setup"): up to a third more work, for a memory that does not grow with the
batch. Without dropout both ways give the same gradients.

Of several processes each encodes its share of the texts, and all see all vectors
(:mod:`trainer.fit.processes`).
"""

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from schemas.runs import TrainingConfig
from trainer.fit.batching import Batch
from trainer.fit.loss import weighted_info_nce
from trainer.fit.processes import ALONE, Processes
from trainer.model.encoder import Encoder
from trainer.model.padding import padded
from trainer.model.precision import computes_in_bfloat16


def accumulate(
    encoder: Encoder,
    batches: Sequence[Batch],
    config: TrainingConfig,
    processes: Processes = ALONE,
) -> float:
    """Add the gradients of one step's batches to the encoder's parameters.

    Every pair counts alike, in whichever batch it is: the loss is that of one batch with all pairs,
    in which no query stands against another batch's documents.

    Returns:
        The loss, the same in all processes.
    """
    pairs = sum(len(batch.queries) for batch in batches)
    loss = sum(
        backward(encoder, batch, config, share=len(batch.queries) / pairs, processes=processes)
        for batch in batches
    )
    processes.add_up(encoder.model.parameters())
    return loss


def backward(
    encoder: Encoder,
    batch: Batch,
    config: TrainingConfig,
    *,
    share: float = 1.0,
    processes: Processes = ALONE,
) -> float:
    """Add ``share`` of the gradients of a batch to the encoder's parameters.

    In several processes each adds the part of its own texts: summed, they are the gradients.

    Returns:
        ``share`` of the loss.
    """
    prefixes = encoder.layout
    texts = [prefixes.query_prefix + text for text in batch.queries]
    texts += [prefixes.document_prefix + text for text in batch.documents]
    rows = encoder.tokens(texts, config.max_tokens)
    lengths = [padded(len(row), encoder.max_tokens) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: lengths[index])
    groups = group_by_length(processes.dealt(order), lengths, config.tokens_at_once)
    kept, others = _split(groups, lengths, config.tokens_kept)
    with_graph = _embed(encoder, rows, kept)
    with torch.no_grad():
        own = torch.cat([with_graph.detach(), _embed(encoder, rows, others)])
    vectors = processes.gathered(own, len(rows))
    back = torch.tensor(order).argsort().to(vectors.device)
    vectors = vectors[back].requires_grad_()
    loss = _loss(vectors, batch, config) * share
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = vectors.grad
    assert gradient is not None
    if kept:
        with_graph.backward(gradient[[index for group in kept for index in group]])  # type: ignore[no-untyped-call]
    for group in others:
        _embed(encoder, rows, [group]).backward(gradient[group])  # type: ignore[no-untyped-call]
    return float(loss.detach())


def group_by_length(
    order: Sequence[int], lengths: Sequence[int], tokens_at_once: int
) -> list[list[int]]:
    """Cut ``order``, indices of ``lengths`` from short to long, into groups of like length.

    Padded to its longest member, a group has at most ``tokens_at_once`` tokens, or one member.
    """
    groups: list[list[int]] = []
    for index in order:
        if groups and lengths[index] * (len(groups[-1]) + 1) <= tokens_at_once:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _split(
    groups: Sequence[list[int]], lengths: Sequence[int], tokens: int
) -> tuple[Sequence[list[int]], Sequence[list[int]]]:
    """The first groups, of at most so many padded tokens together, and the others."""
    sizes = itertools.accumulate(len(group) * lengths[group[-1]] for group in groups)
    count = sum(size <= tokens for size in sizes)
    return groups[:count], groups[count:]


def _embed(
    encoder: Encoder, rows: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]
) -> Tensor:
    """Vectors in the order of ``groups``; there may be none."""
    if not groups:
        return torch.zeros(0, encoder.dimension, device=encoder.device)
    with _autocast(encoder):
        return torch.cat([encoder.forward([rows[i] for i in group]) for group in groups])


def _loss(vectors: Tensor, batch: Batch, config: TrainingConfig) -> Tensor:
    """From the vectors of queries and documents on."""
    device, n = vectors.device, len(batch.queries)
    masked = torch.zeros(n, len(batch.documents), dtype=torch.bool)
    for row, columns in enumerate(batch.masked):
        masked[row, list(columns)] = True
    return weighted_info_nce(
        vectors[:n],
        vectors[n:],
        torch.tensor(batch.positive, device=device),
        masked.to(device),
        torch.tensor(batch.weights, dtype=vectors.dtype, device=device),
        config.temperature,
    )


def _autocast(encoder: Encoder) -> AbstractContextManager[object]:
    # One context a pass: its cache of converted weights must not outlive a pass without gradients.
    device = encoder.device
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bfloat16(device))
