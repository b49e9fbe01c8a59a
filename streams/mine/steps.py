"""The steps that mining reads of events, and their packed form in an open trajectory.

Packed steps keep an open trajectory of a deep-research agent under 4 KB.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from msgspec import UnsetType

from schemas.events import Verdict
from streams.events import Browse, Event, Judgement, Reasoning, Search


class SearchStep(msgspec.Struct, array_like=True, tag="s", gc=False, frozen=True):
    """A query and its hits in rank order; ``ranks`` only where they are not 1, 2, 3, …"""

    query: str
    doc_ids: list[str]
    ranks: list[int] | None = None
    retriever_version: int | None = None

    def rank_of(self, doc_id: str) -> int:
        """Rank of a hit; raises ``ValueError`` if the document is no hit."""
        position = self.doc_ids.index(doc_id)
        return self.ranks[position] if self.ranks else position + 1


class BrowseStep(msgspec.Struct, array_like=True, tag="b", gc=False, frozen=True):
    """A document was opened.

    ``name`` is the event's seq, or its event_id in an unnumbered trajectory. A verdict is here
    under judge ``none`` only.
    """

    name: int | str
    doc_id: str
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class ReasoningStep(msgspec.Struct, array_like=True, tag="r", gc=False, frozen=True):
    """A reasoning about the browse right before it; ``about`` is that document if it was named."""

    about: str | None
    tokens: int | None = None
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class BreakStep(msgspec.Struct, array_like=True, tag="x", gc=False, frozen=True):
    """Any other step, a reasoning about no browse, or a gap: it ends a run of browses."""


Step = SearchStep | BrowseStep | ReasoningStep | BreakStep

_encoder = msgspec.msgpack.Encoder()
_decode_one = msgspec.msgpack.Decoder(Step).decode
_decode_array = msgspec.msgpack.Decoder(list[Step]).decode
_CHUNK = 8
_ARRAY = 0x90
"""The first byte of an array of n values is this plus n; a step has fewer than a chunk has."""

_IN_ORDER = list(range(1, 1_001))


Incomplete = Literal["no browse", "no search"]


def incomplete(steps: Sequence[Step]) -> Incomplete | None:
    """Why a trajectory with searches or browses can give no pair."""
    searched = any(isinstance(step, SearchStep) for step in steps)
    browsed = any(isinstance(step, BrowseStep) for step in steps)
    if searched == browsed:
        return None
    return "no browse" if searched else "no search"


def step_of(event: Event) -> Step:
    """The part of a judged event that mining needs."""
    match event:
        case Search():
            hits, ranks = event.hits, [hit.rank for hit in event.hits]
            in_order = ranks == _IN_ORDER[: len(ranks)]
            if not in_order:
                hits = sorted(hits, key=lambda hit: hit.rank)
            doc_ids = [hit.doc_id for hit in hits]
            version = event.retriever_version
            return SearchStep(event.query, doc_ids, None if in_order else sorted(ranks), version)
        case Browse():
            name = event.event_id if event.seq is None else event.seq
            return BrowseStep(name, event.doc_id, *_verdict(event))
        case Reasoning() if event.is_about_browse:
            return ReasoningStep(event.about, event.tokens, *_verdict(event))
        case _:
            return BreakStep()


def _verdict(event: Judgement) -> tuple[Verdict | None, str, str]:
    """Verdict, judge and its version; absent fields are empty."""
    verdict = None if isinstance(event.verdict, UnsetType) else event.verdict
    return verdict, event.judge or "", event.judge_version or ""


def pack(chunks: list[bytes], step: Step) -> None:
    """Append one step to a trajectory's packed steps.

    Each is one step in MessagePack; :data:`_CHUNK` of them become an array: so many small objects
    become one, and none grows in place, which would fragment the heap.
    """
    chunks.append(_encoder.encode(step))
    if len(chunks) >= _CHUNK and chunks[-_CHUNK][0] < _ARRAY + _CHUNK:
        chunks[-_CHUNK:] = [b"".join([bytes([_ARRAY + _CHUNK]), *chunks[-_CHUNK:]])]


def unpack(chunks: list[bytes]) -> Iterator[Step]:
    """The steps that :func:`pack` appended, in order."""
    for chunk in chunks:
        if chunk[0] < _ARRAY + _CHUNK:
            yield _decode_one(chunk)
        else:
            yield from _decode_array(chunk)
