"""Releases: what was trained and what serves (topic ``retriever-releases``, compacted).

Key = the version: one immutable :class:`Release`. Key ``decision:<version>``: the index worker's
:class:`CandidateDecision`; the first one counts. Key ``live``: the :class:`Live` pointer, which is
the truth; the Milvus alias follows it.
"""

from typing import Literal

from schemas import base
from schemas.base import Contract, Count, Moment, Version
from schemas.errors import InvalidRecordError
from schemas.runs import Caps, Digest, RunId

LIVE_KEY = "live"
DECISION_KEY = "decision:"

Decision = Literal["first", "ship", "hold", "reject", "pending", "failed", "abandoned"]
"""``first``: the untrained release. A candidate's decision can also be ``pending`` (it passed, and
goes live only if somebody promotes it), ``failed`` (its collection could not be built, or is not
that of its model) and ``abandoned`` (its build made no progress).
"""


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
        documents: that were searched: those of the pool, or of the whole corpus; absent if nothing
            was compared.
        results: digest of the file beside the model (``.gate.jsonl``) that has the results of
            every query and the ids of the pool; absent if nothing was compared.
    """

    decision: Decision
    reason: str
    held_out: Comparison | None = None
    ancestor: Comparison | None = None
    ancestor_version: Version | None = None
    regression: Comparison | None = None
    margin: float | None = None
    caps: Caps | None = None
    documents: Count | None = None
    results: Digest | None = None


class Release(GateDecision):
    """One trained model and the gate's decision on it.

    Attributes:
        parent, run_id: absent on the first, untrained release.
        candidate: whether the gate's decision is to ship it, and the index worker decides on it;
            otherwise the decision is final.
    """

    version: Version
    retriever: str
    parent: Version | None = None
    run_id: RunId | None = None
    model: Model
    created_at: Moment
    candidate: bool = False


class Integrity(Contract):
    """Whether a collection holds the vectors of its model, and its search finds them.

    Attributes:
        queries: that were asked, each for ten hits.
        found: share of the pool's documents that score above the tenth hit and are among the ten.
        checked: hits of the pool whose score was compared.
        largest_error: largest difference of their scores from those of the model's vectors.
    """

    queries: Count
    found: float
    checked: Count
    largest_error: float


class CandidateDecision(GateDecision):
    """The index worker's decision on a candidate, from both collections (docs/gate.md).

    Attributes:
        version: of the candidate.
        integrity: of its collection; absent if nothing was compared.
    """

    version: Version
    integrity: Integrity | None = None
    decided_at: Moment


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


Record = Release | CandidateDecision | Live
"""A value of ``retriever-releases``."""


def decode(key: bytes | None, value: bytes | None) -> Record:
    """The value of a record of ``retriever-releases``, by its key.

    Raises:
        InvalidRecordError: the value is invalid, or has another key.
    """
    if key == LIVE_KEY.encode():
        return base.decode(Live, value)
    found: Release | CandidateDecision
    if (key or b"").startswith(DECISION_KEY.encode()):
        found = base.decode(CandidateDecision, value)
    else:
        found = base.decode(Release, value)
    if key != encode(found)[0]:
        raise InvalidRecordError(f"version is {found.version}, the key is {key!r}")
    return found


def encode(record: Record) -> tuple[bytes, bytes]:
    """Key and value of a record of ``retriever-releases``."""
    if isinstance(record, Live):
        return LIVE_KEY.encode(), record.to_json()
    prefix = DECISION_KEY if isinstance(record, CandidateDecision) else ""
    return f"{prefix}{record.version}".encode(), record.to_json()
