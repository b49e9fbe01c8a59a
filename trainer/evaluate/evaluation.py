"""Evaluation of an encoder: nDCG@10, recall@10 and MRR of exact search over a pool of documents.

Scores are rounded to six digits, and ties are broken by doc id, so equal vectors give equal
rankings on any machine. ir-measures computes the metrics as trec_eval does: linear gains, and a
document is relevant from grade 1 on.
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
"""A larger corpus is sampled down to a pool of this many documents."""

TOP = 100
"""Documents per query that each encoder adds to the pool of a large corpus."""

CUTOFF = 10

DEPTH = 1000
"""Length of a ranking; a first relevant document below it has the reciprocal rank 0."""

Judgements = Mapping[str, Set[str] | Mapping[str, int]]
"""Relevant doc ids, or their grades, by query."""

_NDCG, _RECALL, _RR = nDCG @ CUTOFF, R @ CUTOFF, RR

_QUERIES_AT_ONCE = 128
_DOCUMENTS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """Metrics of one query, each between 0 and 1.

    Attributes:
        ndcg_at_10: a document's gain is its grade, discounted by log2(rank + 1).
        recall_at_10: share of the relevant documents among the first ten.
        reciprocal_rank: of the first relevant document.
        hits: ids of the first ten documents, best first; :func:`measure` leaves it empty.
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
        queries: with their relevant documents.
        documents: the pool, text by doc id.
        progress: called while documents are encoded.
    """
    ids = sorted(documents)
    vectors = encoder.encode_documents([documents[doc_id] for doc_id in ids], progress=progress)
    return evaluate_vectors(encoder, queries, ids, vectors)


def evaluate_vectors(
    encoder: Encoder, queries: Judgements, ids: Sequence[str], vectors: Vectors
) -> dict[str, QueryMetrics]:
    """Like :func:`evaluate`, with the documents' vectors.

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
        grades: for each query, the grades of the judged documents by doc id.
        rankings: for each query, the doc ids of its hits, best first.
    """
    judged = {str(row): dict(some) for row, some in enumerate(grades)}
    # Distinct scores, because trec_eval has a tie-break of its own.
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
    """Means over queries, as recorded in a release.

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
    """The pool of documents on which all encoders are compared.

    The whole corpus, if it has at most ``limit`` documents. Otherwise all relevant documents, the
    best hits of each encoder (:data:`TOP` per query), and a seeded sample of the rest up to
    ``limit``.

    Args:
        documents: the corpus, text by doc id.
        queries: with their relevant documents.
        encoders: to compare.
        progress: called while each encoder encodes a large corpus.
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
    """The doc ids of the ``count`` best hits of every query, best first, by exact search.

    At most :data:`_DOCUMENTS_AT_ONCE` documents' vectors are in memory.
    """
    ids = sorted(documents)
    asked = encoder.encode_queries(queries)
    best = np.full((len(queries), 0), -np.inf)
    columns = np.zeros((len(queries), 0), dtype=np.int64)
    for start in range(0, len(ids), _DOCUMENTS_AT_ONCE):
        some = ids[start : start + _DOCUMENTS_AT_ONCE]
        scores = _scores(asked, encoder.encode_documents([documents[doc_id] for doc_id in some]))
        # Earlier documents have smaller ids and win ties in a stable sort.
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
    """The best ``count`` columns of each row, best first; ties are broken by column."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def _grades(relevant: Set[str] | Mapping[str, int], column: Mapping[str, int]) -> dict[str, int]:
    """Grades of the documents in the pool, by column."""
    grades = relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1)
    return {str(column[doc_id]): grade for doc_id, grade in grades.items() if doc_id in column}
