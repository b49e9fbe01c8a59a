"""Labelled pairs: what mining makes of a trajectory (topic ``labelled-pairs``).

Ids, not texts. Of several records with one ``pair_id`` the first counts.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import Field

from schemas import ProfileName, base
from schemas.base import Contract, Count, DocId, Offset, Tenant, TrajectoryId, Version, canonical
from schemas.events import Agent, Outcome
from schemas.judged import JudgeLabel

ClosedBy = Literal["end", "idle", "age", "size"]
PairVerdict = Literal["relevant", "irrelevant"]


class LabelledPair(Contract):
    """A query, a browsed document with its verdict, and documents that are worse for the query.

    Attributes:
        pair_id: see :func:`pair_id`.
        browse_seq, browse_event_id: the browse that the pair is about: its number, or its event id
            in an unnumbered trajectory.
        earlier_queries: the search phase's queries before ``query``, in order, each once. The agent
            was after the same thing and did not find it, so the positive is what they wanted, too
            (a query chain: Radlinski and Joachims, KDD 2005).
        positive: the browsed document, also when the verdict is ``irrelevant`` (nothing is hidden).
        negatives: in order: rejected ones first (profile ``reference``).
        reasoning_tokens: length of the reasoning after the browse; absent if there was none.
        rejected: how many leading negatives were browsed and rejected.
        rank: of the positive in the latest search that held it.
        outcome: of the trajectory; ``unknown`` without an end event.
        gaps: events of the trajectory that never came.
        sources: offsets of the trajectory's first and last judged event; absent offline, and no
            part of a pair's content.
    """

    pair_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    trajectory_id: TrajectoryId
    browse_seq: Count | None = None
    browse_event_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    revision: str
    profile: ProfileName
    query: str
    earlier_queries: tuple[str, ...] = ()
    positive: DocId
    negatives: tuple[DocId, ...]
    verdict: PairVerdict
    judge: JudgeLabel
    judge_version: JudgeLabel
    reasoning_tokens: Count | None = None
    rejected: Count
    rank: Annotated[int, Field(ge=1)]
    outcome: Outcome
    closed_by: ClosedBy
    gaps: Count
    agent: Agent
    tenant: Tenant
    retriever_version: Version | None = None
    sources: tuple[Offset, Offset] | None = None

    def content(self) -> "LabelledPair":
        """The pair without ``sources``: what two copies of one pair share."""
        return self.model_copy(update={"sources": None})


def pair_id(revision: str, trajectory_id: str, browse: int | str, profile: str) -> str:
    """First 32 hex digits of the SHA-256 of the four values as a JSON array.

    ``browse`` is the browse's seq, or its event_id in an unnumbered trajectory.
    """
    return hashlib.sha256(canonical([revision, trajectory_id, browse, profile])).hexdigest()[:32]


def decode(value: bytes | None) -> LabelledPair:
    """The pair of a record of ``labelled-pairs``.

    Raises:
        InvalidRecordError: the value is no pair.
    """
    return base.decode(LabelledPair, value)


def encode(pair: LabelledPair) -> tuple[bytes, bytes]:
    """Key and value of a pair's record."""
    return pair.trajectory_id.encode(), pair.to_json()
