"""What mining reads of a judged event, and the packed form in which an open trajectory keeps it.

The contract is :mod:`schemas.judged`; this is the view of a reader that trusts it, because only our
judge writes the topic. msgspec decodes such a view about ten times as fast as a full validation,
and packed steps keep an open trajectory of a deep-research agent under 4 KB. A test holds both
against the contract.
"""

from collections.abc import Iterator

import msgspec

from schemas.events import Outcome, Verdict


class AgentView(msgspec.Struct, gc=False):
    """Who acted."""

    name: str
    model: str


class _Record(msgspec.Struct, tag_field="type", gc=False):
    trajectory_id: str
    seq: int
    source_offset: int
    source_time: int
    agent: AgentView
    tenant: str = ""
    retriever_version: int | None = None


class HitView(msgspec.Struct, gc=False):
    """A hit; mining needs no score."""

    doc_id: str
    rank: int


class SearchRecord(_Record, tag="search", kw_only=True, gc=False):
    """A search, as read."""

    query: str
    hits: list[HitView]


class BrowseRecord(_Record, tag="browse", kw_only=True, gc=False):
    """A browse, as read."""

    doc_id: str
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class ReasoningRecord(_Record, tag="reasoning", kw_only=True, gc=False):
    """A reasoning, as read."""

    about: str | None = None
    tokens: int | None = None
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class AnswerRecord(_Record, tag="answer", gc=False):
    """An answer, as read."""


class OtherRecord(_Record, tag="other", gc=False):
    """Another step, as read."""


class EndRecord(_Record, tag="end", kw_only=True, gc=False):
    """The end, as read."""

    outcome: Outcome = "unknown"


class TickRecord(msgspec.Struct, tag_field="type", tag="tick", gc=False):
    """Time passes."""

    as_of: int | None = None


EventRecord = SearchRecord | BrowseRecord | ReasoningRecord | AnswerRecord | OtherRecord | EndRecord

decode = msgspec.json.Decoder(EventRecord | TickRecord).decode
"""Read the value of a judged-events record; raises ``msgspec.MsgspecError`` for foreign bytes."""


def readable(value: bytes) -> bool:
    """Whether :data:`decode` can read the value."""
    try:
        decode(value)
    except msgspec.MsgspecError:
        return False
    return True


class SearchStep(msgspec.Struct, array_like=True, tag="s", gc=False, frozen=True):
    """A query and its hits in rank order; ``ranks`` only where they are not 1, 2, 3, …"""

    seq: int
    query: str
    doc_ids: list[str]
    ranks: list[int] | None = None
    retriever_version: int | None = None

    def rank_of(self, doc_id: str) -> int:
        """Rank of a hit; raises ``ValueError`` for a document that is none."""
        position = self.doc_ids.index(doc_id)
        return self.ranks[position] if self.ranks else position + 1


class BrowseStep(msgspec.Struct, array_like=True, tag="b", gc=False, frozen=True):
    """A document was opened; under judge ``none`` the verdict is here."""

    seq: int
    doc_id: str
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class ReasoningStep(msgspec.Struct, array_like=True, tag="r", gc=False, frozen=True):
    """A thought about the document browsed right before."""

    seq: int
    about: str
    tokens: int | None = None
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class BreakStep(msgspec.Struct, array_like=True, tag="x", gc=False, frozen=True):
    """Anything else that ends a run of browses: another step, a thought about nothing, a gap."""

    seq: int


Step = SearchStep | BrowseStep | ReasoningStep | BreakStep

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Step])
_CHUNK = 8
_ARRAY_OF_ONE = b"\x91"
_ARRAY_OF_CHUNK = b"\x98"


def step_of(record: EventRecord) -> Step:
    """The part of a record that mining needs."""
    match record:
        case SearchRecord():
            hits = record.hits
            if any(hit.rank != place for place, hit in enumerate(hits, 1)):
                hits = sorted(hits, key=lambda hit: hit.rank)
                ranks = [hit.rank for hit in hits]
            else:
                ranks = None
            doc_ids = [hit.doc_id for hit in hits]
            return SearchStep(record.seq, record.query, doc_ids, ranks, record.retriever_version)
        case BrowseRecord():
            return BrowseStep(
                record.seq, record.doc_id, record.verdict, record.judge, record.judge_version
            )
        case ReasoningRecord(about=str(about)):
            return ReasoningStep(
                record.seq,
                about,
                record.tokens,
                record.verdict,
                record.judge,
                record.judge_version,
            )
        case _:
            return BreakStep(record.seq)


def pack(chunks: list[bytes], step: Step) -> None:
    """Append one step to a trajectory's packed steps.

    Each chunk is a MessagePack array of one step, or of :data:`_CHUNK` of them: so many small
    objects become one, and none grows in place, which would leave holes in the heap.
    """
    chunks.append(_encoder.encode([step]))
    if len(chunks) >= _CHUNK and chunks[-_CHUNK].startswith(_ARRAY_OF_ONE):
        chunks[-_CHUNK:] = [_ARRAY_OF_CHUNK + b"".join(chunk[1:] for chunk in chunks[-_CHUNK:])]


def unpack(chunks: list[bytes]) -> Iterator[Step]:
    """The steps that :func:`pack` appended, in order."""
    for chunk in chunks:
        yield from _decoder.decode(chunk)
