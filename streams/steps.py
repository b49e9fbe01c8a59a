"""What mining reads of a judged event, and the packed form in which an open trajectory keeps it.

The contract is :mod:`schemas.judged`; this is the view of a reader that trusts it, because only our
judge writes the topic. msgspec decodes such a view about ten times as fast as a full validation,
and one packed line a step keeps an open trajectory under 4 KB. A test holds both against the
contract.
"""

from collections.abc import Iterable

import msgspec

from schemas.events import Outcome, Verdict


class _Record(msgspec.Struct, tag_field="type", gc=False):
    trajectory_id: str
    seq: int
    source_offset: int
    source_time: int
    agent: dict[str, str]
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


EventRecord = SearchRecord | BrowseRecord | ReasoningRecord | AnswerRecord | OtherRecord | EndRecord

decode = msgspec.json.Decoder(EventRecord | TickRecord).decode
"""Read the value of a judged-events record; raises ``msgspec.MsgspecError`` for foreign bytes."""


class SearchStep(msgspec.Struct, array_like=True, tag="search", gc=False, frozen=True):
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


class BrowseStep(msgspec.Struct, array_like=True, tag="browse", gc=False, frozen=True):
    """A document was opened; under judge ``none`` the verdict is here."""

    seq: int
    doc_id: str
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class ReasoningStep(msgspec.Struct, array_like=True, tag="reasoning", gc=False, frozen=True):
    """A thought about the document browsed right before."""

    seq: int
    about: str
    tokens: int | None = None
    verdict: Verdict | None = None
    judge: str = ""
    judge_version: str = ""


class BreakStep(msgspec.Struct, array_like=True, tag="break", gc=False, frozen=True):
    """Anything else that ends a run of browses: another step, a thought about nothing, a gap."""

    seq: int


Step = SearchStep | BrowseStep | ReasoningStep | BreakStep

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Step)


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


def pack(steps: bytearray, step: Step) -> None:
    """Append one step to a trajectory's packed steps."""
    _encoder.encode_into(step, steps, len(steps))
    steps += b"\n"


def unpack(steps: bytearray) -> Iterable[Step]:
    """The steps that :func:`pack` appended, in order."""
    return _decoder.decode_lines(steps)
