"""Evaluation of an encoder: nDCG@10, recall@10 and MRR of exact search over a pool of documents.

Scores are rounded to six digits, and ties are broken by doc id, so equal vectors give equal
rankings on any machine. ir-measures computes the metrics as trec_eval does: linear gains, and a
document is relevant from grade 1 on.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import zip_longest
from types import MappingProxyType

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray

from schemas.releases import Metrics
from trainer.model.encoder import Encoder, Vectors

POOL = 20_000
"""Documents of a pool; a smaller corpus is its own pool."""

CUTOFF = 10

DEPTH = 1000
"""Length of a ranking; a first relevant document below it has the reciprocal rank 0."""

Judgements = Mapping[str, Set[str] | Mapping[str, int]]
"""Relevant doc ids, or their grades, by query."""

_NDCG, _RECALL, _RR = nDCG @ CUTOFF, R @ CUTOFF, RR

_QUERIES_AT_ONCE = 128


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
    encoder: Encoder, queries: Judgements, documents: Mapping[str, str]
) -> dict[str, QueryMetrics]:
    """Metrics of every query that has a relevant document in the pool.

    Args:
        encoder: to evaluate.
        queries: with their relevant documents.
        documents: the pool, text by doc id.
    """
    ids = sorted(documents)
    vectors = encoder.encode_documents([documents[doc_id] for doc_id in ids])
    return evaluate_vectors(encoder, queries, ids, vectors)


def evaluate_vectors(
    encoder: Encoder,
    queries: Judgements,
    ids: Sequence[str],
    vectors: Vectors,
    visible: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
) -> dict[str, QueryMetrics]:
    """Like :func:`evaluate`, with the documents' vectors.

    Args:
        ids: of the pool, sorted.
        vectors: (len(ids), dimension), in the order of ``ids``.
        visible: by query, for each of ``ids`` whether the query can find it; by default it can.
    """
    column = {doc_id: index for index, doc_id in enumerate(ids)}
    relevant = {query: _grades(some, column) for query, some in queries.items()}
    asked = [query for query, grades in relevant.items() if any(grades.values())]
    found: dict[str, QueryMetrics] = {}
    for start in range(0, len(asked), _QUERIES_AT_ONCE):
        some = asked[start : start + _QUERIES_AT_ONCE]
        scores = (encoder.encode_queries(some) @ vectors.T).astype(np.float64).round(6)
        for row, query in enumerate(some):
            if query in visible:
                scores[row, ~visible[query]] = -np.inf
        # A stable order breaks ties by column.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
        order = [row[own[row] > -np.inf] for row, own in zip(best, scores, strict=True)]
        rankings = [[str(index) for index in row] for row in order]
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
    relevant: Iterable[str],
    hits: Iterable[Sequence[str]],
    sample: Iterable[str],
    *,
    limit: int,
) -> set[str]:
    """The ids of the documents on which all encoders are compared, out of a larger corpus.

    All relevant documents; the parent's first hits, rank by rank, until half of the pool is full;
    and the sample, up to the limit.

    Args:
        relevant: of all queries.
        hits: of each query, best first.
        sample: drawn uniformly from the corpus.
        limit: of the pool, unless more documents are relevant.
    """
    chosen = set(relevant)
    by_rank = (doc_id for rank in zip_longest(*hits) for doc_id in rank if doc_id is not None)
    for doc_id in by_rank:
        if len(chosen) >= limit // 2:
            break
        chosen.add(doc_id)
    for doc_id in sample:
        if len(chosen) >= limit:
            break
        chosen.add(doc_id)
    return chosen


def grades_of(relevant: Set[str] | Mapping[str, int]) -> Mapping[str, int]:
    """Grades by doc id; those of a set are 1."""
    return relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1)


def _grades(relevant: Set[str] | Mapping[str, int], column: Mapping[str, int]) -> dict[str, int]:
    """Grades of the documents in the pool, by column."""
    grades = grades_of(relevant).items()
    return {str(column[doc_id]): grade for doc_id, grade in grades if doc_id in column}
