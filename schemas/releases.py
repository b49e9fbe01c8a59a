"""Releases: what was trained and what serves (topic ``retriever-releases``, compacted).

Key = the version: one immutable :class:`Release`. Key ``live``: the :class:`Live` pointer, which is
the truth; the Milvus alias follows it.
"""

from typing import Literal

from schemas import base
from schemas.base import Contract, Count, Moment, Version
from schemas.errors import InvalidRecordError
from schemas.runs import Caps, Digest, RunId

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


class Comparison(Contract):
    """Parent and child on the same queries, over the same documents.

    Attributes:
        queries: with a relevant document; at least one.
        parent_metrics, child_metrics: means over the queries.
        difference: mean nDCG@10 of the child minus the parent's.
        interval: one-sided 95% bounds of the difference, the lower and the upper one.
    """

    queries: Count
    parent_metrics: Metrics
    child_metrics: Metrics
    difference: float
    interval: tuple[float, float]


class GateDecision(Contract):
    """What the gate decided on a child, and from which figures.

    Attributes:
        reason: the decision in words.
        held_out: on held-out queries; absent without any, and if nothing was compared.
        ancestor: with an earlier release in the place of the parent, on the same queries.
        ancestor_version: that release: the fifth before the child in its lineage, or the first;
            absent if that is the parent.
        regression: on the user's own queries; absent if there was no regression set, or none of its
            documents in the corpus.
        margin: fall of nDCG@10 that had to be ruled out.
        caps: of the held-out queries, against poisoning.
        results: digest of the file beside the model that has the results of every query; absent if
            nothing was compared.
    """

    decision: Decision
    reason: str
    held_out: Comparison | None = None
    ancestor: Comparison | None = None
    ancestor_version: Version | None = None
    regression: Comparison | None = None
    margin: float | None = None
    caps: Caps | None = None
    results: Digest | None = None


class Release(GateDecision):
    """One trained model and the gate's decision on it.

    Attributes:
        parent, run_id: absent on the first, untrained release.
    """

    version: Version
    retriever: str
    parent: Version | None = None
    run_id: RunId | None = None
    model: Model
    created_at: Moment


class Live(Contract):
    """Which version should serve, which one before, why, and the runs that are quarantined.

    Attributes:
        by: who decided; only an operator can make a release live that the gate did not ship.
    """

    version: Version
    previous: Version | None = None
    why: str
    changed_at: Moment
    quarantined: tuple[RunId, ...] = ()
    by: Literal["retrail", "operator"] = "retrail"


def decode(key: bytes | None, value: bytes | None) -> Release | Live:
    """The release, or the ``live`` pointer, of a record of ``retriever-releases``.

    Raises:
        InvalidRecordError: it is neither, or the key is not that of the value.
    """
    if key == LIVE_KEY.encode():
        return base.decode(Live, value)
    release = base.decode(Release, value)
    if key != encode(release)[0]:
        raise InvalidRecordError(f"version is {release.version}, the key is {key!r}")
    return release


def encode(record: Release | Live) -> tuple[bytes, bytes]:
    """Key and value of a record of ``retriever-releases``."""
    key = LIVE_KEY if isinstance(record, Live) else str(record.version)
    return key.encode(), record.to_json()
