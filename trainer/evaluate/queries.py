"""Relevant documents of held-out queries, derived from labelled pairs."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable

import structlog

from schemas.base import canonical
from schemas.pairs import LabelledPair
from schemas.runs import Caps
from schemas.settings import TrainSettings
from trainer.data import caps
from trainer.data.caps import UNCAPPED
from trainer.data.draws import is_held_out, normalize_query

log = structlog.get_logger(__name__)

CAP_SHARE = 0.02
"""Largest share of all judgements for one document, or one trajectory."""

CAP_RUN = 100
"""Fewest judgements that the share is a fraction of."""


def caps_of(settings: TrainSettings) -> Caps:
    """Caps against poisoning of the gate, whose queries come from untrusted agents as well.

    A child that ranks one pushed document first gains on all queries for which it is labelled
    relevant, and a query moves the mean by at most its share. So one document, and one trajectory,
    may have :data:`CAP_SHARE` of all judgements, or three times an equal share if there are few:
    with a margin of that size, neither alone can hide a regression. Agents and tenants are capped
    as in training.
    """
    return Caps(
        agent=settings.train_cap_agent,
        tenant=settings.train_cap_tenant,
        trajectory=CAP_SHARE,
        query=1.0,
        document=CAP_SHARE,
        run=CAP_RUN,
    )


def relevance(
    pairs: Iterable[LabelledPair],
    trained: Collection[str] = (),
    limits: Caps = UNCAPPED,
    seed: int = 0,
) -> dict[str, set[str]]:
    """Relevant documents by query; spellings of one query are merged under the first of them.

    The parent or an ancestor answered the query of a pair well: its positive was among the hits. On
    such queries alone a child could hardly improve. So the trajectory's earlier queries, which did
    not find the positive, have it as a relevant document as well.

    Pairs of trajectories that ended with a wrong answer are left out. Their documents were among
    the parent's best hits, and many are not relevant, so they would be held against a better child
    (docs/lab/learning.md).

    Args:
        pairs: relevant ones with the latest known outcomes, in any order.
        trained: normalized queries to exclude.
        limits: caps on judgements; see :func:`caps_of`.
        seed: of the draws within the caps.
    """
    every = _judgements((pair for pair in pairs if pair.outcome != "incorrect"), trained)
    capped = caps.apply(every, limits, seed=seed, parent=0)
    if capped.left_out:
        log.info("judgements capped", judgements=len(every), left_out=dict(capped.left_out))
    documents: dict[str, set[str]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for judgement in capped.pairs:
        name = normalize_query(judgement.query)
        documents[name].add(judgement.positive)
        spelling[name] = min(judgement.query, spelling.get(name, judgement.query))
    return {spelling[name]: relevant for name, relevant in sorted(documents.items())}


def trained_queries(pairs: Iterable[LabelledPair]) -> set[str]:
    """The normalized queries that may train, of trainable pairs: their own and earlier ones."""
    return {
        normalize_query(query)
        for pair in pairs
        for query in (pair.query, *pair.earlier_queries)
        if not is_held_out(query)
    }


def _judgements(pairs: Iterable[LabelledPair], trained: Collection[str]) -> list[LabelledPair]:
    """Each query with each of its relevant documents, once, as a pair.

    Its trajectory is that of the source pair with the lowest id.
    """
    found: dict[tuple[str, str], LabelledPair] = {}
    spelling: dict[tuple[str, str], str] = {}
    for pair in sorted(pairs, key=lambda pair: pair.pair_id):
        for query in (pair.query, *pair.earlier_queries):
            key = normalize_query(query), pair.positive
            if key[0] not in trained:
                found.setdefault(key, pair)
                spelling[key] = min(query, spelling.get(key, query))
    return [
        pair.model_copy(update={"pair_id": _id_of(key), "query": spelling[key]})
        for key, pair in found.items()
    ]


def _id_of(key: tuple[str, str]) -> str:
    """Id of a judgement, the same for all agents."""
    return hashlib.sha256(canonical(list(key))).hexdigest()[:32]
