"""The frozen part of a comparison: what the index worker asks again, over the whole corpus.

The file lies beside the child (``.gate.jsonl``): the results of every query, one JSON line each,
then the pool::

    {"child":{"hits":["d1"],"ndcg_at_10":1.0},"parent":{…},"query":"…","relevant":{"d1":1},
     "set":"held out"}
    {"documents":["d1","d2"],"set":"pool","since_parent":true}

Where documents have tenants, the line of a held-out query also has the ``tenant`` that it is
limited to (empty: it finds only what is everyone's). Equal comparisons give equal bytes.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson

from schemas.base import canonical
from trainer.evaluate.evaluation import Judgements, QueryMetrics, grades_of

HELD_OUT, REGRESSION, POOL = "held out", "regression", "pool"

Grades = Mapping[str, Mapping[str, int]]
"""Grades of documents by query."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """Queries and pool of a comparison.

    Attributes:
        held_out, regression: grades of the relevant documents, by query.
        pool: ids of the documents that parent and child were compared on.
        since_parent: whether all held-out queries were first asked since the parent.
        tenants: by held-out query, of those that are limited.
    """

    held_out: Grades
    regression: Grades
    pool: Collection[str]
    since_parent: bool
    tenants: Mapping[str, str] = field(default_factory=dict)


def dump(results: Iterable[bytes], pool: Collection[str], *, since_parent: bool) -> bytes:
    """The file.

    Args:
        results: of each set of queries, from :func:`rows`.
    """
    last = {"set": POOL, "documents": sorted(pool), "since_parent": since_parent}
    return b"".join(results) + canonical(last) + b"\n"


def parse(content: bytes) -> Frozen:
    """The queries and the pool of a file."""
    *rows, last = map(orjson.loads, content.splitlines())

    def grades(name: str) -> Grades:
        return {row["query"]: row["relevant"] for row in rows if row["set"] == name}

    tenants = {row["query"]: row["tenant"] for row in rows if "tenant" in row}
    return Frozen(
        grades(HELD_OUT), grades(REGRESSION), last["documents"], last["since_parent"], tenants
    )


def rows(
    name: str,
    relevant: Judgements,
    parent: Mapping[str, QueryMetrics],
    child: Mapping[str, QueryMetrics],
    tenants: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """The results of each query as canonical JSON lines, sorted by query.

    Args:
        name: of the set of queries.
        relevant: documents, or their grades, by query.
        parent, child: metrics by query.
        tenants: by query, of those that are limited.
    """

    def side(found: QueryMetrics) -> dict[str, object]:
        return {"hits": list(found.hits), "ndcg_at_10": round(found.ndcg_at_10, 6)}

    lines = (
        {
            "set": name,
            "query": query,
            "relevant": dict(grades_of(relevant[query])),
            "parent": side(parent[query]),
            "child": side(child[query]),
            **({"tenant": tenants[query]} if query in tenants else {}),
        }
        for query in sorted(parent)
    )
    return b"".join(canonical(line) + b"\n" for line in lines)
