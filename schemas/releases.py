"""Releases: what was trained and what serves (topic ``retriever-releases``, compacted).

Key = the version: one immutable :class:`Release`. Key ``live``: the :class:`Live` pointer, which is
the truth; the Milvus alias follows it.
"""

from typing import Literal

from schemas.base import Contract, Count, Moment, Version
from schemas.runs import Digest, RunId

LIVE_KEY = "live"

Decision = Literal["first", "ship", "hold", "reject", "pending"]
"""``pending``: it passed the gate, and goes live only if somebody promotes it."""


class Model(Contract):
    """Where a model lies in the registry, and the digest over its files."""

    location: str
    digest: Digest


class Metrics(Contract):
    """Means over the held-out queries."""

    ndcg_at_10: float
    recall_at_10: float
    mrr: float


class Regression(Contract):
    """Parent and child on the user's own queries.

    Attributes:
        difference: mean nDCG@10 of the child minus the parent's.
        interval: one-sided 95% bounds of the difference, the lower and the upper one.
    """

    queries: Count
    parent_metrics: Metrics
    child_metrics: Metrics
    difference: float
    interval: tuple[float, float]


class Release(Contract):
    """One trained model and the gate's decision on it.

    Attributes:
        parent, run_id, parent_metrics, child_metrics: absent on the first, untrained release.
        queries: held-out queries that the gate compared on.
        difference: mean nDCG@10 of the child minus the parent's; absent if nothing was compared.
        interval: one-sided 95% bounds of the difference, the lower and the upper one.
        margin: what the lower bound had to be above the negative of.
        regression: absent if there was no regression set, or none of its documents in the corpus.
        reason: the decision in words.
    """

    version: Version
    retriever: str
    parent: Version | None = None
    run_id: RunId | None = None
    model: Model
    created_at: Moment
    queries: Count
    parent_metrics: Metrics | None = None
    child_metrics: Metrics | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    regression: Regression | None = None
    decision: Decision
    reason: str


class Live(Contract):
    """Which version should serve, which one before, why, and the runs that a rollback set aside."""

    version: Version
    previous: Version | None = None
    why: str
    changed_at: Moment
    quarantined: tuple[RunId, ...] = ()
