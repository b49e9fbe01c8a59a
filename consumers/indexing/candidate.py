"""The gate's second stage: a candidate's collection beside the live one, over the whole corpus.

Two checks, both by the search path that agents use. Integrity: the collection holds the vectors of
its model, and its search finds them. Quality: the rule of docs/gate.md.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from consumers.indexing.embedder import Embedder
from retrail_runtime.milvus import Build
from retrail_runtime.search import Tenants
from schemas.documents import Document
from schemas.releases import CandidateDecision, GateDecision, Integrity, Release
from trainer.evaluate import evaluation, gate
from trainer.evaluate.evaluation import CUTOFF, QueryMetrics
from trainer.evaluate.frozen import Frozen, Grades
from trainer.evaluate.gate import Rule
from trainer.model.encoder import Vectors

TOLERANCE = 0.001
"""Difference of two scores that encoding a text again may make."""

FOUND = 0.95
"""Share of the documents above the tenth hit that must be among the ten."""

_QUERIES_AT_ONCE = 100

Hits = Sequence[tuple[str, float]]
"""Ids and scores of the hits of a query, best first."""

Search = Callable[[Build, Sequence[str], Vectors, Tenants], Sequence[Hits]]
"""The first :data:`CUTOFF` hits of queries, by their texts, vectors and tenants."""


@dataclass(frozen=True, slots=True)
class Side:
    """A build and the embedder of its model."""

    build: Build
    embedder: Embedder


def decide(
    release: Release,
    frozen: Frozen,
    parent: Side,
    child: Side,
    *,
    own: Integrity,
    search: Search,
    documents: int,
    manual: bool,
    seed: int,
) -> CandidateDecision:
    """Ask the frozen queries of both collections, unless the child's is broken, and decide.

    Both must hold the same documents.

    Args:
        own: of the child, from :func:`integrity`.
        documents: in the corpus.
        manual: whether ``ship`` becomes ``pending``, for an operator's approval.
        seed: of the bootstrap.
    """

    def decided(found: GateDecision, why: str) -> CandidateDecision:
        values = dict(found) | {"reason": why, "documents": documents, "integrity": own}
        return CandidateDecision(version=release.version, decided_at=datetime.now(UTC), **values)

    if problem := broken(own):
        return decided(GateDecision(decision="failed", reason=problem), problem)
    found = [_measured(frozen, side, search) for side in (parent, child)]
    (before, own_before), (after, own_after) = found
    made = gate.decide(
        gate.compare(before, after, relevant=frozen.held_out, seed=seed),
        Rule(release.margin or 0.0),
        since_parent=frozen.since_parent,
        regression_set=bool(frozen.regression),
        regression=gate.compare(own_before, own_after, relevant=frozen.regression, seed=seed),
        manual=manual,
        caps=release.caps,
    )
    return decided(made, f"on {documents:,} documents {made.reason}")


def integrity(
    frozen: Frozen,
    child: Side,
    *,
    search: Search,
    pool: Sequence[Document],
    changed: Callable[[], Set[str]],
    check: Callable[[], object],
) -> Integrity:
    """Compare the hits of a collection's dense search with the scores of its model's vectors.

    These searches find the documents of all tenants: only the figures are kept.

    Args:
        pool: the documents of the frozen pool that still exist.
        changed: called after the searches; the ids of documents that changed since ``pool`` was
            read.
        check: called between batches of the encoder; its exceptions end the comparison.
    """
    texts = sorted({*frozen.held_out, *frozen.regression})
    asked = child.embedder.queries(texts)
    dense = replace(child.build, search="dense")
    served = _in_parts(dense, texts, asked, [None] * len(texts), search)
    rows = child.embedder.rows(pool, lambda *_: check())
    after = changed()
    rows = [row for row in rows if row.doc_id not in after]
    ids = [row.doc_id for row in rows]
    vectors = np.array([row.vector for row in rows], dtype=np.float32)
    return compare(asked, ids, vectors.reshape(len(rows), asked.shape[1]), served)


def compare(
    asked: Vectors, ids: Sequence[str], vectors: Vectors, served: Sequence[Hits]
) -> Integrity:
    """The figures of :class:`Integrity`.

    Args:
        asked: (queries, dimension).
        ids: of the pool.
        vectors: (len(ids), dimension), of the pool's documents by the model.
        served: for each query its first hits, up to :data:`CUTOFF`.
    """
    names, row = np.array(ids, dtype=object), {doc_id: at for at, doc_id in enumerate(ids)}
    expected = met = checked = 0
    largest = 0.0
    for query, hits in zip(asked, served, strict=True):
        scores = vectors @ query
        tenth = hits[-1][1] if len(hits) >= CUTOFF else -np.inf
        above = set(names[scores > tenth + TOLERANCE])
        found = dict(hits)
        expected, met = expected + len(above), met + len(above & found.keys())
        errors = [abs(score - scores[row[name]]) for name, score in hits if name in row]
        checked, largest = checked + len(errors), max([largest, *map(float, errors)])
    share = met / expected if expected else 1.0
    return Integrity(queries=len(served), found=share, checked=checked, largest_error=largest)


def broken(found: Integrity) -> str:
    """Why a collection must not serve; empty if it may."""
    if found.largest_error > TOLERANCE:
        return (
            f"a hit's score differs by {found.largest_error:.4f} from that of its document's "
            f"vector (at most {TOLERANCE} is rounding): rows have the vectors of other documents "
            "or of another model"
        )
    if found.found < FOUND:
        return (
            f"the search finds {found.found:.1%} of the documents that score above its tenth hit "
            f"({FOUND:.0%} are needed): the index of the vectors is too coarse"
        )
    return ""


def _measured(
    frozen: Frozen, side: Side, search: Search
) -> tuple[Mapping[str, QueryMetrics], Mapping[str, QueryMetrics]]:
    """Metrics of the held-out queries, and of the regression set."""

    def measured(grades: Grades, tenants: Mapping[str, str]) -> dict[str, QueryMetrics]:
        texts = sorted(grades, key=lambda text: (tenants.get(text, ""), text))
        limits = [tenants.get(text) for text in texts]
        served = _in_parts(side.build, texts, side.embedder.queries(texts), limits, search)
        found = [tuple(doc_id for doc_id, _ in hits) for hits in served]
        values = evaluation.measure([grades[text] for text in texts], found)
        return {
            text: replace(value, hits=hits)
            for text, value, hits in zip(texts, values, found, strict=True)
        }

    return measured(frozen.held_out, frozen.tenants), measured(frozen.regression, {})


def _in_parts(
    build: Build, texts: Sequence[str], vectors: Vectors, tenants: Tenants, search: Search
) -> list[Hits]:
    parts = (slice(at, at + _QUERIES_AT_ONCE) for at in range(0, len(texts), _QUERIES_AT_ONCE))
    return [
        hits for part in parts for hits in search(build, texts[part], vectors[part], tenants[part])
    ]
