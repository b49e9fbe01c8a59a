"""How well an encoder finds what held-out queries were served by: nDCG@10, recall@10, MRR.

Exact search over the whole pool. Scores are rounded to six digits, and ties go by doc id, so that
equal vectors rank alike on any machine.
"""

import math
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.releases import Metrics
from trainer.encoder import Encoder, Progress, Vectors

WHOLE_CORPUS = 20_000
"""A corpus of up to so many documents is the pool; of a larger one a part is."""

TOP = 100
"""Documents that parent and child each bring into the pool of a large corpus, per query."""

CUTOFF = 10

_QUERIES_AT_ONCE = 128
_DOCUMENTS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """How one query fared; each between 0 and 1. Relevance is binary.

    Attributes:
        ndcg_at_10: gain 1 for a relevant document, discounted by log2(rank + 1).
        recall_at_10: share of the relevant documents among the first ten.
        reciprocal_rank: of the first relevant document, in the whole pool.
    """

    ndcg_at_10: float
    recall_at_10: float
    reciprocal_rank: float


def evaluate(
    encoder: Encoder,
    queries: Mapping[str, Set[str]],
    documents: Mapping[str, str],
    *,
    progress: Progress | None = None,
) -> dict[str, QueryMetrics]:
    """Metrics of every query that has a relevant document in the pool.

    Args:
        encoder: to evaluate.
        queries: relevant doc ids by query.
        documents: the pool, text by doc id.
        progress: called while documents are encoded.
    """
    ids = sorted(documents)
    vectors = encoder.encode_documents([documents[doc_id] for doc_id in ids], progress=progress)
    return evaluate_vectors(encoder, queries, ids, vectors)


def evaluate_vectors(
    encoder: Encoder, queries: Mapping[str, Set[str]], ids: Sequence[str], vectors: Vectors
) -> dict[str, QueryMetrics]:
    """Like :func:`evaluate`, over documents that the encoder has encoded before.

    Args:
        ids: of the pool, sorted.
        vectors: (len(ids), dimension), in the order of ``ids``.
    """
    column = {doc_id: index for index, doc_id in enumerate(ids)}
    relevant = {
        query: sorted(column[doc_id] for doc_id in some if doc_id in column)
        for query, some in queries.items()
    }
    asked = [query for query, columns in relevant.items() if columns]
    found: dict[str, QueryMetrics] = {}
    for start in range(0, len(asked), _QUERIES_AT_ONCE):
        some = asked[start : start + _QUERIES_AT_ONCE]
        for query, scores in zip(some, _scores(encoder.encode_queries(some), vectors), strict=True):
            found[query] = _metrics_of([_rank(scores, at) for at in relevant[query]])
    return found


def mean(metrics: Mapping[str, QueryMetrics]) -> Metrics:
    """Means over queries, as a release records them.

    Raises:
        ValueError: there is no query.
    """
    if not metrics:
        raise ValueError("no query was evaluated")
    every = metrics.values()
    return Metrics(
        ndcg_at_10=math.fsum(m.ndcg_at_10 for m in every) / len(every),
        recall_at_10=math.fsum(m.recall_at_10 for m in every) / len(every),
        mrr=math.fsum(m.reciprocal_rank for m in every) / len(every),
    )


def choose_pool(
    documents: Mapping[str, str],
    queries: Mapping[str, Set[str]],
    encoders: Sequence[Encoder],
    *,
    limit: int = WHOLE_CORPUS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, str]:
    """The documents that encoders are compared on: the same for all of them.

    The whole corpus up to ``limit`` documents. Of a larger one: all relevant documents, what each
    encoder finds first (:data:`TOP` a query), and a seeded sample of the rest up to ``limit``.

    Args:
        documents: the corpus, text by doc id.
        queries: relevant doc ids by query.
        encoders: parent and child.
        progress: called while a large corpus is encoded, by each encoder.
    """
    if len(documents) <= limit:
        return dict(documents)
    chosen = {doc_id for some in queries.values() for doc_id in some if doc_id in documents}
    for encoder in encoders:
        for found in top_documents(encoder, list(queries), documents, TOP, progress=progress):
            chosen.update(found)
    rest = sorted(set(documents) - chosen)
    sample = random.Random(seed).sample(rest, min(len(rest), max(0, limit - len(chosen))))
    return {doc_id: documents[doc_id] for doc_id in sorted(chosen.union(sample))}


def top_documents(
    encoder: Encoder,
    queries: Sequence[str],
    documents: Mapping[str, str],
    count: int,
    *,
    progress: Progress | None = None,
) -> list[list[str]]:
    """The best ``count`` doc ids of every query, best first, by exact search.

    Memory holds the vectors of :data:`_DOCUMENTS_AT_ONCE` documents, whatever the corpus holds.
    """
    ids = sorted(documents)
    asked = encoder.encode_queries(queries)
    best = np.full((len(queries), 0), -np.inf)
    columns = np.zeros((len(queries), 0), dtype=np.int64)
    for start in range(0, len(ids), _DOCUMENTS_AT_ONCE):
        some = ids[start : start + _DOCUMENTS_AT_ONCE]
        scores = _scores(asked, encoder.encode_documents([documents[doc_id] for doc_id in some]))
        # Documents before these have smaller ids: a stable sort lets them win ties.
        scores = np.concatenate([best, scores], axis=1)
        found = np.broadcast_to(np.arange(start, start + len(some)), (len(queries), len(some)))
        found = np.concatenate([columns, found], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(scores, order, axis=1)
        columns = np.take_along_axis(found, order, axis=1)
        if progress is not None:
            progress(start + len(some), len(ids))
    return [[ids[index] for index in row] for row in columns]


def _scores(queries: Vectors, documents: Vectors) -> NDArray[np.float64]:
    return (queries @ documents.T).astype(np.float64).round(6)


def _rank(scores: NDArray[np.float64], at: int) -> int:
    """1 for the best; columns are in the order of doc ids, which decides ties."""
    better = np.count_nonzero(scores > scores[at])
    return 1 + int(better) + int(np.count_nonzero(scores[:at] == scores[at]))


def _metrics_of(ranks: Sequence[int]) -> QueryMetrics:
    """Of one query, from the ranks of its relevant documents."""
    near = [rank for rank in ranks if rank <= CUTOFF]
    ideal = math.fsum(1 / math.log2(1 + rank) for rank in range(1, min(len(ranks), CUTOFF) + 1))
    return QueryMetrics(
        ndcg_at_10=math.fsum(1 / math.log2(1 + rank) for rank in near) / ideal,
        recall_at_10=len(near) / len(ranks),
        reciprocal_rank=1 / min(ranks),
    )
