"""Pairs for queries that found nothing: what the most similar query of any agent found.

Queries that find nothing could teach most, and their own agents cannot label them. A query found
nothing if every document that was opened for it was irrelevant, or if its agent reworded it. It
gets a pair if

- the most similar query that found something is similar enough, as the parent encodes both, and
- no other document was found by a query that is nearly as similar: the ratio test of Lowe (2004),
  with a difference in place of the ratio.

Only pairs of the same tenant are considered.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.base import canonical
from schemas.pairs import LabelledPair
from schemas.runs import SimilarRule
from trainer.data.draws import draw_of, is_held_out, normalize_query

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Queries to L2-normalised vectors, one row each."""

RULE = SimilarRule(similarity=0.8, lead=0.05, weight=0.5)
"""Chosen on four corpora, one seed each (docs/lab/learning.md)."""

AT_ONCE = 1024
"""Queries that are compared with all others at once."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query that found nothing, and the first pair whose agent asked it."""

    query: str
    pair_id: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Similar:
    """A pair made for a query.

    Attributes:
        pair: the one that found something, with the other query and an id of its own.
        found_by, asked_by: ids of the pair that found something, and of the one whose agent asked.
        factor: of the pair's weight.
    """

    pair: LabelledPair
    found_by: str
    asked_by: str
    factor: float


class Unanswered:
    """Queries of pairs that may have found nothing: at most ``2 * most``, drawn by hash."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: dict[str, Asked] = {}

    def add(self, pairs: Iterable[LabelledPair]) -> None:
        """Note the queries of irrelevant pairs, and the reworded ones of all."""
        for pair in pairs:
            own = () if pair.verdict == "relevant" else (pair.query,)
            for query in (*own, *pair.earlier_queries):
                asked = Asked(query, pair.pair_id, pair.tenant)
                self._asked.setdefault(normalize_query(query), asked)
        if len(self._asked) > 2 * self._most:
            self._asked = {name: self._asked[name] for name in self._drawn(self._asked)}

    def left(self, found: Iterable[LabelledPair]) -> list[Asked]:
        """Those that are neither held out nor the query of a pair that found something."""
        answered = {normalize_query(pair.query) for pair in found}
        names = [
            name
            for name, asked in self._asked.items()
            if name not in answered and not is_held_out(asked.query)
        ]
        return [self._asked[name] for name in self._drawn(names)]

    def _drawn(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=draw_of)[: self._most]


def similar(
    asked: Sequence[Asked], found: Sequence[LabelledPair], encode: Encode, rule: SimilarRule
) -> list[Similar]:
    """Pairs for the queries ``asked``, made of the pairs that found something."""
    if not asked or not found:
        return []
    vectors = encode([*(each.query for each in asked), *(pair.query for pair in found)])
    mine, theirs = vectors[: len(asked)], vectors[len(asked) :]
    positives = _codes([pair.positive for pair in found])
    tenants = _codes([*(each.tenant for each in asked), *(pair.tenant for pair in found)])
    made = []
    for start in range(0, len(asked), AT_ONCE):
        scores = mine[start : start + AT_ONCE] @ theirs.T
        own = tenants[start : start + len(scores), None]
        scores[own != tenants[len(asked) :]] = -np.inf
        best = scores.argmax(axis=1)
        value = scores[np.arange(len(scores)), best]
        scores[positives == positives[best, None]] = -np.inf
        clear = (value >= rule.similarity) & (scores.max(axis=1) <= value - rule.lead)
        made += [
            _pair(asked[start + row], found[best[row]], rule.weight)
            for row in np.flatnonzero(clear).tolist()
        ]
    return made


def _codes(names: Sequence[str]) -> NDArray[np.intp]:
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1]


def _pair(asked: Asked, found: LabelledPair, factor: float) -> Similar:
    name = canonical(["similar", found.pair_id, normalize_query(asked.query)])
    changes: Mapping[str, object] = {
        "pair_id": hashlib.sha256(name).hexdigest()[:32],
        "query": asked.query,
        "earlier_queries": (),
    }
    return Similar(found.model_copy(update=changes), found.pair_id, asked.pair_id, factor)
