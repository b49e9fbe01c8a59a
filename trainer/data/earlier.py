"""Pairs for the queries that an agent asked before the one that found the document.

What they asked for was found in the end, but not by them, so they show what the retriever ranks too
low. An agent may also have looked for something else before. So a query gets the pair's document if

- the trajectory ended with a correct answer, and
- the query is similar to the pair's own, as the parent encodes both.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.base import canonical
from schemas.pairs import LabelledPair
from schemas.runs import EarlierRule
from trainer.data.draws import is_held_out, normalize_query

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Queries to L2-normalised vectors, one row each."""

RULE = EarlierRule(similarity=0.6, weight=0.5)
"""Measured on five corpora (docs/lab/learning.md)."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A pair made for an earlier query.

    Attributes:
        pair: the one that found the document, with the earlier query and an id of its own.
        found_by: id of the pair that found it.
        factor: of the pair's weight.
    """

    pair: LabelledPair
    found_by: str
    factor: float


def earlier(found: Sequence[LabelledPair], encode: Encode, rule: EarlierRule) -> list[Earlier]:
    """Pairs for the earlier queries of pairs whose trajectory ended with a correct answer.

    Each query gets a document once, and not one that a pair in ``found`` gives it. Held-out queries
    get none.
    """
    known = {(normalize_query(pair.query), pair.positive) for pair in found}
    asked: list[tuple[LabelledPair, str]] = []
    for pair in found:
        for query in pair.earlier_queries:
            name = normalize_query(query), pair.positive
            if name not in known and not is_held_out(query):
                known.add(name)
                asked.append((pair, query))
    if not asked:
        return []
    both = dict.fromkeys(text for pair, query in asked for text in (pair.query, query))
    vectors = dict(zip(both, encode(list(both)), strict=True))
    return [
        _made(pair, query, rule.weight)
        for pair, query in asked
        if vectors[pair.query] @ vectors[query] >= rule.similarity
    ]


def _made(found: LabelledPair, query: str, factor: float) -> Earlier:
    name = canonical(["earlier", found.pair_id, normalize_query(query)])
    changes = {
        "pair_id": hashlib.sha256(name).hexdigest()[:32],
        "query": query,
        "earlier_queries": (),
    }
    return Earlier(found.model_copy(update=changes), found.pair_id, factor)
