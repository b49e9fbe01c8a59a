"""Loss and gradients of one step, in bounded memory, in one process or several.

A batch's texts are encoded in groups of similar length, which reduces padding and does not change
the result. The loss gives the gradient of each vector, which is propagated back through the model
group by group. The activations of the first groups are kept; the other groups are encoded again
(GradCache: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup"). That costs up to a third more time, but memory does not grow with the batch. As there is no
dropout, both ways give the same gradients.

With several processes, each encodes its shard of the texts and gathers all vectors
(:mod:`trainer.fit.processes`).
"""

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.runs import TrainingConfig
from trainer.fit.batching import Batch
from trainer.fit.loss import weighted_info_nce
from trainer.fit.processes import SINGLE_PROCESS, Processes
from trainer.model.batches import padded_length
from trainer.model.encoder import Encoder, Kind
from trainer.model.loading import computes_in_bfloat16


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a batch.

    Attributes:
        length: padded length in tokens, if encoded alone.
    """

    kind: Kind
    tokens: Sequence[int]
    length: int


def backward(
    encoder: Encoder,
    batch: Batch,
    config: TrainingConfig,
    processes: Processes = SINGLE_PROCESS,
) -> float:
    """Add the gradients of a batch to the encoder's parameters.

    Returns:
        The loss, the same in all processes.
    """
    texts = _tokenize(encoder, batch, config)
    order = sorted(range(len(texts)), key=lambda index: (texts[index].kind, texts[index].length))
    groups = group_by_length(processes.shard(order), texts, config.tokens_at_once)
    kept, others = _split(groups, texts, config.tokens_kept)
    with_graph = _embed(encoder, texts, kept)
    with torch.no_grad():
        own = torch.cat([with_graph.detach(), _embed(encoder, texts, others)])
    vectors = processes.all_gather(own, len(texts))
    back = torch.tensor(order).argsort().to(vectors.device)
    vectors = vectors[back].requires_grad_()
    loss = _loss(vectors, batch, config)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = vectors.grad
    assert gradient is not None
    if kept:
        with_graph.backward(gradient[[index for group in kept for index in group]])  # type: ignore[no-untyped-call]
    for group in others:
        _embed(encoder, texts, [group]).backward(gradient[group])  # type: ignore[no-untyped-call]
    processes.all_reduce_gradients(encoder.model.parameters())
    return float(loss.detach())


def group_by_length(
    order: Sequence[int], texts: Sequence[Text], tokens_at_once: int
) -> list[list[int]]:
    """Split ``order`` into groups of one kind and similar length.

    Args:
        order: indices of ``texts``, sorted by kind and length.
        texts: of the batch.
        tokens_at_once: maximum padded tokens of a group, unless it has a single text.
    """
    groups: list[list[int]] = []
    for index in order:
        text, group = texts[index], groups[-1] if groups else []
        fits = text.length * (len(group) + 1) <= tokens_at_once
        if group and fits and texts[group[0]].kind == text.kind:
            group.append(index)
        else:
            groups.append([index])
    return groups


def _tokenize(encoder: Encoder, batch: Batch, config: TrainingConfig) -> list[Text]:
    """Queries first, then documents."""
    kinds: tuple[tuple[Kind, Sequence[str]], ...] = (
        ("query", batch.queries),
        ("document", batch.documents),
    )
    return [
        Text(kind, row, padded_length(len(row), encoder.max_tokens))
        for kind, texts in kinds
        for row in encoder.tokenize(texts, kind, config.max_tokens)
    ]


def _split(
    groups: Sequence[list[int]], texts: Sequence[Text], tokens: int
) -> tuple[Sequence[list[int]], Sequence[list[int]]]:
    """Split ``groups`` into the first ones, with at most ``tokens`` padded tokens, and the rest."""
    sizes = itertools.accumulate(len(group) * texts[group[-1]].length for group in groups)
    count = sum(size <= tokens for size in sizes)
    return groups[:count], groups[count:]


def _embed(encoder: Encoder, texts: Sequence[Text], groups: Sequence[Sequence[int]]) -> Tensor:
    """Vectors (n, dimension) in the order of ``groups``; n may be 0."""
    if not groups:
        return torch.zeros(0, encoder.dimension, device=encoder.device)
    with _autocast(encoder):
        return torch.cat(
            [
                encoder.forward([texts[index].tokens for index in group], texts[group[0]].kind)
                for group in groups
            ]
        )


def _loss(vectors: Tensor, batch: Batch, config: TrainingConfig) -> Tensor:
    """The loss of ``vectors``: those of the queries, then those of the documents."""
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
    # One context per pass: its cache of cast weights must not survive a pass without gradients.
    device = encoder.device
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bfloat16(device))
