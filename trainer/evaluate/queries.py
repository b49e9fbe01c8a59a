"""Which documents are relevant to which held-out queries, by what agents found."""

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
from trainer.data.draws import normalize_query

log = structlog.get_logger(__name__)

CAP_SHARE = 0.02
"""Largest share of all judgements that one document, or one trajectory, may have."""

CAP_RUN = 100
"""Judgements that the share is taken of at least."""


def caps_of(settings: TrainSettings) -> Caps:
    """Caps against poisoning of the gate, whose queries the same strangers ask.

    A child that has learned to put one document first gains on every query for which somebody said
    that it is relevant. A query moves the mean by its share at most. So one document and one
    trajectory may each have :data:`CAP_SHARE` of all that is relevant, or three times an equal
    share where there are few: with a margin as large, neither alone can hide a fall that the gate
    is there to see. Agents and tenants are capped as in training.
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
    """Relevant documents by query; spellings of one query count as one, asked as the first of them.

    The query of a pair is one that the parent, or an ancestor, answered well: the agent found its
    positive among the hits. On such queries alone a child could only fall behind. So the queries
    before it, which the agent asked for the same thing without finding it, count as well.

    The order of the pairs does not matter.

    Args:
        pairs: relevant ones.
        trained: normalized queries to leave out.
        limits: on what one document, trajectory, … contributes, see :func:`caps_of`.
        seed: decides what stays.
    """
    every = _judgements(pairs, trained)
    capped = caps.apply(every, limits, seed=seed, parent=0)
    if capped.left_out:
        log.info("capped in the gate", judgements=len(every), left_out=dict(capped.left_out))
    documents: dict[str, set[str]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for judgement in capped.pairs:
        name = normalize_query(judgement.query)
        documents[name].add(judgement.positive)
        spelling[name] = min(judgement.query, spelling.get(name, judgement.query))
    return {spelling[name]: relevant for name, relevant in sorted(documents.items())}


def _judgements(pairs: Iterable[LabelledPair], trained: Collection[str]) -> list[LabelledPair]:
    """Each query with each document relevant to it, once, as a pair of its own.

    It belongs to the trajectory of the pair with the lowest id.
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
    """Names a judgement, whoever made it."""
    return hashlib.sha256(canonical(list(key))).hexdigest()[:32]
