"""How well an encoder finds the documents that serve a query: nDCG@10, recall@10, MRR.

Exact search over the whole pool. Scores are rounded to six digits, and ties go by doc id, so that
equal vectors rank alike on any machine. The rankings are measured by ir-measures, that is by
trec_eval: linear gains, and a document is relevant from grade 1 on.
"""

import math
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray

from schemas.releases import Metrics
from trainer.model.encoder import Encoder, Progress, Vectors

WHOLE_CORPUS = 20_000
"""A corpus of up to so many documents is the pool; of a larger one a part is."""

TOP = 100
"""Documents that parent and child each bring into the pool of a large corpus, per query."""

CUTOFF = 10

DEPTH = 1000
"""Ranks that are looked at; a first relevant document below them has the reciprocal rank 0."""

Judgements = Mapping[str, Set[str] | Mapping[str, int]]
"""By query the relevant doc ids, or their grades."""

_NDCG, _RECALL, _RR = nDCG @ CUTOFF, R @ CUTOFF, RR

_QUERIES_AT_ONCE = 128
_DOCUMENTS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """How one query fared; each between 0 and 1.

    Attributes:
        ndcg_at_10: a document's gain is its grade, discounted by log2(rank + 1).
        recall_at_10: share of the relevant documents among the first ten.
        reciprocal_rank: of the first relevant document.
        hits: ids of the first ten documents, best first; empty where they were not asked for.
    """

    ndcg_at_10: float
    recall_at_10: float
    reciprocal_rank: float
    hits: tuple[str, ...] = ()


def evaluate(
    encoder: Encoder,
    queries: Judgements,
    documents: Mapping[str, str],
    *,
    progress: Progress | None = None,
) -> dict[str, QueryMetrics]:
    """Metrics of every query that has a relevant document in the pool.

    Args:
        encoder: to evaluate.
        queries: what is relevant to each.
        documents: the pool, text by doc id.
        progress: called while documents are encoded.
    """
    ids = sorted(documents)
    vectors = encoder.encode_documents([documents[doc_id] for doc_id in ids], progress=progress)
    return evaluate_vectors(encoder, queries, ids, vectors)


def evaluate_vectors(
    encoder: Encoder, queries: Judgements, ids: Sequence[str], vectors: Vectors
) -> dict[str, QueryMetrics]:
    """Like :func:`evaluate`, over documents that the encoder has encoded before.

    Args:
        ids: of the pool, sorted.
        vectors: (len(ids), dimension), in the order of ``ids``.
    """
    column = {doc_id: index for index, doc_id in enumerate(ids)}
    relevant = {query: _grades(some, column) for query, some in queries.items()}
    asked = [query for query, grades in relevant.items() if any(grades.values())]
    found: dict[str, QueryMetrics] = {}
    for start in range(0, len(asked), _QUERIES_AT_ONCE):
        some = asked[start : start + _QUERIES_AT_ONCE]
        order = _order(_scores(encoder.encode_queries(some), vectors), DEPTH)
        rankings = [[str(index) for index in row] for row in order.tolist()]
        measured = measure([relevant[query] for query in some], rankings)
        for query, metrics, row in zip(some, measured, order, strict=True):
            hits = tuple(ids[index] for index in row[:CUTOFF])
            found[query] = replace(metrics, hits=hits)
    return found


def measure(
    grades: Sequence[Mapping[str, int]], rankings: Sequence[Sequence[str]]
) -> list[QueryMetrics]:
    """Metrics of each query.

    Args:
        grades: of the judged documents of each query, by doc id.
        rankings: doc ids that were found for each query, best first.
    """
    judged = {str(row): dict(some) for row, some in enumerate(grades)}
    # Distinct scores: trec_eval would break ties its own way.
    ranked = {
        str(row): {doc_id: float(-rank) for rank, doc_id in enumerate(found)}
        for row, found in enumerate(rankings)
    }
    values = {
        (metric.query_id, metric.measure): metric.value
        for metric in ir_measures.iter_calc([_NDCG, _RECALL, _RR], judged, ranked)
    }
    return [
        QueryMetrics(values[row, _NDCG], values[row, _RECALL], values[row, _RR]) for row in judged
    ]


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
    queries: Judgements,
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
        queries: what is relevant to each.
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
        order = _order(scores, count)
        best = np.take_along_axis(scores, order, axis=1)
        columns = np.take_along_axis(found, order, axis=1)
        if progress is not None:
            progress(start + len(some), len(ids))
    return [[ids[index] for index in row] for row in columns]


def _scores(queries: Vectors, documents: Vectors) -> NDArray[np.float64]:
    return (queries @ documents.T).astype(np.float64).round(6)


def _order(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The best ``count`` columns of each row, best first; of equal ones the leftmost."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def _grades(relevant: Set[str] | Mapping[str, int], column: Mapping[str, int]) -> dict[str, int]:
    """Grades of the documents in the pool, by the name of their column."""
    grades = relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1)
    return {str(column[doc_id]): grade for doc_id, grade in grades.items() if doc_id in column}
