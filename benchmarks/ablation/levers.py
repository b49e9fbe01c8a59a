"""Ways to learn more, each alone a function of plain values.

They belong to this benchmark until one is shown to help on most corpora. One has a setting already:
:mod:`trainer.data.earlier`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.corpus import Need
from simulation.scripted import digest
from trainer.data.draws import normalize_query
from trainer.data.examples import TrainingExample
from trainer.fit import batching
from trainer.fit.batching import Batch

SPAN_WORDS = 12
"""Longest query made of consecutive words of a document."""

SPAN_WEIGHT = 0.5
"""Weight of its example."""

MINED = 10
"""Most negatives of an example that are taken from the collection."""

MINED_DEPTH = 40
"""Hits of a query in which negatives are looked for."""

MINED_SHARE = 0.95
"""Highest score of a mined negative, as a share of the positive's (NV-Retriever: Moreira et al.
2024, "Improving Text Embedding Models with Effective Hard-negative Mining")."""

FALSE_NEGATIVE_MARGIN = 0.1
"""A document that the parent scores higher than the positive by more than this is masked."""

PASSED_OVER_MARGIN = 0.15
"""A positive that the parent scores lower than the best hit passed over by more than this is
dropped."""

EXPLORED_DEPTH = 5
"""The hit that exploration shows is one of the first ``k`` times this many documents."""

HELD_BACK = 0.15
"""Share of the training queries that decide when training stops."""

MOST_PASSES = 6
PATIENCE = 1
"""Passes without an improvement after which training stops."""


class Scored(NamedTuple):
    """A document of the collection and its score for a query."""

    doc_id: str
    text: str
    score: float


def spans(
    documents: Sequence[tuple[str, str]], count: int, draw: Random, factor: float = SPAN_WEIGHT
) -> list[TrainingExample]:
    """Examples without an agent: some words of a document ask for the rest of it.

    The inverse cloze task (Lee et al. 2019, "Latent Retrieval for Weakly Supervised Open Domain
    Question Answering").

    Args:
        documents: id and text.
        count: documents drawn.
        factor: the weight of each.
    """
    found = []
    for doc_id, text in draw.sample(documents, min(count, len(documents))):
        words = text.split()
        if len(words) > 2 * SPAN_WORDS:
            start = draw.randrange(len(words) - SPAN_WORDS)
            found.append(
                TrainingExample(
                    pair_id=digest("span", doc_id),
                    query=" ".join(words[start : start + SPAN_WORDS]),
                    positive_id=doc_id,
                    positive_text=" ".join([*words[:start], *words[start + SPAN_WORDS :]]),
                    negatives=(),
                    weight=factor,
                )
            )
    return found


def with_hard_negatives(
    examples: Sequence[TrainingExample],
    hits: Mapping[str, Sequence[Scored]],
    positive_scores: Mapping[str, float],
    *,
    share: float = MINED_SHARE,
    most: int = MINED,
) -> list[TrainingExample]:
    """The examples with negatives from the collection beside the agent's own.

    Args:
        hits: of each query, best first.
        positive_scores: of each example's positive for its query, by ``pair_id``.
        share: a hit with a higher score than this share of the positive's may be relevant and is
            left out; so are known positives of the query.
        most: hits taken for an example.
    """
    positives = batching.known_positives(examples)
    found = []
    for example in examples:
        not_wanted = positives[normalize_query(example.query)] | {t for _, t in example.negatives}
        highest = share * positive_scores[example.pair_id]
        mined: dict[str, str] = {}
        for hit in hits[example.query]:
            if hit.score <= highest and hit.text not in not_wanted:
                mined.setdefault(hit.text, hit.doc_id)
        more = tuple((doc_id, text) for text, doc_id in list(mined.items())[:most])
        found.append(replace(example, negatives=example.negatives + more))
    return found


def plausible(
    examples: Sequence[TrainingExample],
    scores: Sequence[tuple[float, Sequence[float]]],
    margin: float = PASSED_OVER_MARGIN,
) -> list[TrainingExample]:
    """The examples without positives that the parent scores far below the hits passed over.

    Args:
        scores: by the parent, of each example's positive and of its negatives.
    """
    return [
        example
        for example, (positive, negatives) in zip(examples, scores, strict=True)
        if positive >= max(negatives, default=positive) - margin
    ]


def explored(order: Sequence[int], shown: int, draw: Random) -> list[int]:
    """The hits that an agent is shown: the best, and instead of the last one a lower document.

    Args:
        order: documents by rank, at least one more than ``shown``.
        draw: chooses from rank ``shown + 1`` to ``shown`` times :data:`EXPLORED_DEPTH`.
    """
    return [*order[: shown - 1], draw.choice(order[shown : shown * EXPLORED_DEPTH])]


def without_false_negatives(
    batch: Batch, scores: NDArray[np.floating], margin: float = FALSE_NEGATIVE_MARGIN
) -> Batch:
    """The batch without negatives that the parent scores above the positive by ``margin``.

    Args:
        scores: (queries, documents) of the batch, by the parent.
    """
    own = np.take_along_axis(scores, np.asarray(batch.positive)[:, None], axis=1)
    masked = tuple(
        known | (set(np.flatnonzero(above).tolist()) - {positive})
        for known, above, positive in zip(
            batch.masked, scores > own + margin, batch.positive, strict=True
        )
    )
    return replace(batch, masked=masked)


def full_supervision(
    needs: Iterable[Need],
    hits: Mapping[str, Sequence[Scored]],
    text_of: Callable[[str], str],
) -> list[TrainingExample]:
    """Examples of true labels: the text of each need with each document that serves it.

    Negatives are the other hits of the text.
    """
    found = []
    for need in needs:
        relevant = {text_of(doc_id) for doc_id in need.relevant}
        others = tuple(
            (hit.doc_id, hit.text) for hit in hits[need.text] if hit.text not in relevant
        )
        found += [
            TrainingExample(
                pair_id=digest("full", need.need_id, doc_id),
                query=need.text,
                positive_id=doc_id,
                positive_text=text_of(doc_id),
                negatives=others,
                weight=1.0,
            )
            for doc_id in sorted(need.relevant)
        ]
    return found


def held_back(
    examples: Iterable[TrainingExample], share: float = HELD_BACK
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Examples to fit on, and those of a share of the queries, drawn by hash.

    The draw is another one than the gate's, whose held-out queries no example has.
    """
    parts: tuple[list[TrainingExample], list[TrainingExample]] = ([], [])
    for example in examples:
        name = f"early stop/{normalize_query(example.query)}"
        draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        parts[draw < share * 2**64].append(example)
    return parts


def best_pass(values: Iterator[float], most: int = MOST_PASSES, patience: int = PATIENCE) -> int:
    """The number, from 1, of the pass with the highest value.

    Args:
        values: after each pass. No more is read after ``most`` passes, or ``patience`` of them
            without an improvement.
    """
    best, best_value = 1, next(values)
    for number in range(2, most + 1):
        if (value := next(values)) > best_value:
            best, best_value = number, value
        elif number - best >= patience:
            break
    return best
