"""From examples to batches: a query occurs once in a batch, and a seed gives the same batches.

Queries are shuffled, a query's pairs side by side; then each batch takes one pair in turn. So the
pairs of one query land in different batches, and batches differ in size by one at most. A query
with more pairs than there are batches keeps the rest for another round, whose batches follow.

Lengths play no part here, so they do not skew what stands in a batch together; a step sorts its
texts by length when it encodes them (:mod:`trainer.fit.finetune`).
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainer.data.draws import normalize_query
from trainer.data.examples import TrainingExample


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step sees.

    Attributes:
        queries: n of them.
        documents: m distinct texts: positives first, then negatives, in order of appearance.
        positive: index into ``documents`` of each query's own positive.
        masked: for each query the indices of documents that must not stand against it.
        weights: n of them.
        pair_ids: n of them.
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
        negatives: K, own negatives of a pair, at most.
        seed: with ``number`` it decides all draws.
        number: of the epoch.

    Returns:
        Batches in which every example occurs once, but for those that stand alone in a batch and
        have no negative (they give no gradient).
    """
    positives = known_positives(examples)
    batches = []
    for group in _rounds(examples, size, random.Random(f"{seed}/{number}")):
        chosen = [
            own_negatives(example, negatives, positives, seed=seed, number=number)
            for example in group
        ]
        if len(group) > 1 or chosen[0]:
            batches.append(_batch(group, chosen, positives))
    return batches


def known_positives(examples: Sequence[TrainingExample]) -> dict[str, frozenset[str]]:
    """Texts of all positives of a query, by the normalized query."""
    texts: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        texts[normalize_query(example.query)].add(example.positive_text)
    return {query: frozenset(some) for query, some in texts.items()}


def own_negatives(
    example: TrainingExample,
    count: int,
    positives: Mapping[str, frozenset[str]],
    *,
    seed: int,
    number: int,
) -> list[str]:
    """At most ``count`` texts, drawn by seed and epoch; all have the same chance.

    Known positives of the query are no negatives. The draw depends on the example alone, not on
    the others of the run.
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
) -> Batch:
    texts = [example.positive_text for example in group]
    texts += [text for own in negatives for text in own]
    documents = tuple(dict.fromkeys(texts))
    column = {text: index for index, text in enumerate(documents)}
    positive = tuple(column[example.positive_text] for example in group)
    masked = tuple(
        frozenset(
            column[text] for text in positives[normalize_query(example.query)] if text in column
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
