"""Loss and gradients of one step, in bounded memory, in one process or several.

A batch's texts are encoded in groups of like length, which wastes little on padding and changes
nothing in the mathematics. The loss gives each vector's gradient, and each group takes its share
back through the model. What that needs is kept of as many groups as there shall be memory for; the
others are encoded again (GradCache: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size
under Memory Limited Setup"): up to a third more work, for a memory that does not grow with the
batch. Without dropout both ways give the same gradients.

Of several processes each encodes its shard of the texts, and all see all vectors
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
        length: to which it would be padded alone, in tokens.
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

    In several processes each computes the part of its own texts, and the parts are summed.

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
    """Cut ``order``, indices of ``texts`` by kind and length, into groups of like length.

    Padded to its longest member, a group has at most ``tokens_at_once`` tokens, or one member.
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
    """The first groups, of at most so many padded tokens together, and the others."""
    sizes = itertools.accumulate(len(group) * texts[group[-1]].length for group in groups)
    count = sum(size <= tokens for size in sizes)
    return groups[:count], groups[count:]


def _embed(encoder: Encoder, texts: Sequence[Text], groups: Sequence[Sequence[int]]) -> Tensor:
    """Vectors in the order of ``groups``; there may be none."""
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
