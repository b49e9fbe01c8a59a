"""Seeded batches of examples, in which each query occurs at most once.

Queries are shuffled, with the pairs of a query side by side; then the pairs are assigned to the
batches round-robin. So the pairs of one query are in different batches, and batch sizes differ by
one at most. If a query has more pairs than there are batches, the others form a further round of
batches.

Batches are independent of text lengths; a step sorts its texts by length when it encodes them
(:mod:`trainer.fit.gradients`).
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.documents import may_see
from trainer.data.draws import normalize_query
from trainer.data.examples import TrainingExample


@dataclass(frozen=True, slots=True)
class Batch:
    """The examples of one optimiser step.

    Attributes:
        queries: n texts.
        documents: m distinct texts: positives first, then negatives, in order of appearance.
        positive: for each query, the index of its positive in ``documents``.
        masked: for each query, the indices of documents that are excluded from its negatives: its
            other positives, and what its tenant may not see.
        weights: n weights.
        pair_ids: n ids.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    positive: tuple[int, ...]
    masked: tuple[frozenset[int], ...]
    weights: tuple[float, ...]
    pair_ids: tuple[str, ...]


def epoch(
    examples: Sequence[TrainingExample],
    *,
    size: int,
    negatives: int,
    seed: int,
    number: int,
) -> list[Batch]:
    """The batches of one epoch.

    Args:
        examples: in any order; they are sorted by pair id before the seeded shuffle.
        size: pairs in a batch, at most.
        negatives: K, the maximum number of a pair's own negatives.
        seed, number: seed of all draws.
        number: of the epoch.

    Returns:
        Batches in which every example occurs once. A batch of a single example without negatives
        has no gradient and is dropped.
    """
    positives, private = known_positives(examples), private_texts(examples)
    batches = []
    for group in _rounds(examples, size, random.Random(f"{seed}/{number}")):
        chosen = [
            own_negatives(example, negatives, positives, seed=seed, number=number)
            for example in group
        ]
        if len(group) > 1 or chosen[0]:
            batches.append(_batch(group, chosen, positives, private))
    return batches


def known_positives(examples: Sequence[TrainingExample]) -> dict[str, frozenset[str]]:
    """Texts of all positives, by normalized query."""
    texts: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        texts[normalize_query(example.query)].add(example.positive_text)
    return {query: frozenset(some) for query, some in texts.items()}


def private_texts(examples: Iterable[TrainingExample]) -> dict[str, frozenset[str]]:
    """Tenants by text, of the texts that are nowhere those of a document of everyone."""
    found: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        for doc_id, text in example.documents:
            found[text].add(example.tenant if doc_id in example.private else "")
    return {text: frozenset(owners) for text, owners in found.items() if "" not in owners}


def own_negatives(
    example: TrainingExample,
    count: int,
    positives: Mapping[str, frozenset[str]],
    *,
    seed: int,
    number: int,
) -> list[str]:
    """Sample up to ``count`` of an example's negatives, uniformly, by seed and epoch.

    Known positives of the query are excluded. The sample does not depend on other examples.
    """
    known = positives[normalize_query(example.query)]
    others = [text for _, text in example.negatives if text not in known]
    draw = random.Random(f"{seed}/{number}/{example.pair_id}")
    return draw.sample(others, min(count, len(others)))


def _rounds(
    examples: Sequence[TrainingExample], size: int, draw: random.Random
) -> Iterator[list[TrainingExample]]:
    by_query: dict[str, list[TrainingExample]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: example.pair_id):
        by_query[normalize_query(example.query)].append(example)
    queries = list(by_query.values())
    for pairs in queries:
        draw.shuffle(pairs)
    while queries:
        draw.shuffle(queries)
        count = -(-sum(map(len, queries)) // size)
        turns = [example for pairs in queries for example in pairs[:count]]
        batches = [turns[start::count] for start in range(count)]
        draw.shuffle(batches)
        yield from (batch for batch in batches if batch)
        queries = [pairs[count:] for pairs in queries if len(pairs) > count]


def _batch(
    group: Sequence[TrainingExample],
    negatives: Sequence[Sequence[str]],
    positives: Mapping[str, frozenset[str]],
    private: Mapping[str, frozenset[str]],
) -> Batch:
    texts = [example.positive_text for example in group]
    texts += [text for own in negatives for text in own]
    documents = tuple(dict.fromkeys(texts))
    column = {text: index for index, text in enumerate(documents)}
    positive = tuple(column[example.positive_text] for example in group)
    owned = [text for text in documents if text in private]
    masked = tuple(
        frozenset(
            column[text]
            for text in (
                *positives[normalize_query(example.query)],
                *(
                    text
                    for text in owned
                    if not any(may_see(example.tenant, owner) for owner in private[text])
                ),
            )
            if text in column
        )
        - {own}
        for example, own in zip(group, positive, strict=True)
    )
    return Batch(
        queries=tuple(example.query for example in group),
        documents=documents,
        positive=positive,
        masked=masked,
        weights=tuple(example.weight for example in group),
        pair_ids=tuple(example.pair_id for example in group),
    )
