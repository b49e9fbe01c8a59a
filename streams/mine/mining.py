"""From the steps of one trajectory to labelled pairs (LRAT, section 4).

A *run* is a maximal row of browses, each optionally followed by the reasoning that is about it; any
other step, or the close of the trajectory, ends it. When a run ends, each of its browses whose
document was among the hits gives a pair; a run with a relevant document starts a new search phase.

:func:`decide` gives the reasons with the pairs: the miner uses the pairs, ``retrail explain`` both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby, takewhile
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from schemas import ProfileName
from schemas.events import Outcome, Verdict
from schemas.pairs import ClosedBy, LabelledPair, PairVerdict, decode
from streams.events import Agent, encode
from streams.mine.steps import BreakStep, BrowseStep, ReasoningStep, SearchStep, Step

BrowseResult = Literal["relevant", "irrelevant", "unknown", "unsearched"]
"""What a browse gave: a pair with that verdict; or none, because no verdict is known or no search
of the phase held the document."""

Rule = Literal[
    "rejected in this run", "rejected earlier", "not opened", "another hit of the search"
]
"""Why a document is a negative."""

Role = Literal[Rule, "positive", "relevant in this run", "unknown verdict"]
"""What a document is for a pair; those with the last two are left out."""

Negatives = list[tuple[Rule, list[str]]]
"""Documents in order; those in a row that have one rule are together."""

_REJECTED: tuple[Rule, Rule] = ("rejected in this run", "rejected earlier")


class MinedPair(Struct, frozen=True, gc=False):
    """The pair of a browse, without the fields that all pairs of its trajectory share."""

    query: str
    earlier_queries: tuple[str, ...]
    positive: str
    negatives: tuple[str, ...]
    verdict: PairVerdict
    judge: str
    judge_version: str
    rejected: int
    rank: int
    reasoning_tokens: int | None = None
    retriever_version: int | None = None
    browse_seq: int | None = None
    browse_event_id: str | None = None


class Pair(MinedPair, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A record of labelled-pairs: :class:`schemas.pairs.LabelledPair` as the miner writes it.

    Writing it takes 2 µs, where pydantic takes 15 to check and write what was checked as events.
    """

    pair_id: str
    trajectory_id: str
    revision: str
    profile: ProfileName
    outcome: Outcome
    closed_by: ClosedBy
    gaps: int
    agent: Agent
    tenant: str
    sources: tuple[int, int] | None = None

    def labelled(self) -> LabelledPair:
        """The pair by its contract."""
        return decode(encode(self))

    def content(self) -> LabelledPair:
        """The same without ``sources``: see :meth:`schemas.pairs.LabelledPair.content`."""
        return replace(self, sources=None).labelled()


class Decision(Struct, frozen=True, gc=False):
    """What mining made of a browse, and why.

    Attributes:
        browse: the step.
        verdict: on its document.
        result: whether it gave a pair; if not, why.
        rank: of its document in the latest search of the phase that held it; ``None``: none did.
        pair: if it gave one, with
        negatives: the rules of the pair's negatives, and
        left_out: documents that are no negatives, because the run found them relevant, and because
            no verdict on them is known.
    """

    browse: BrowseStep
    verdict: Verdict
    result: BrowseResult
    rank: int | None = None
    pair: MinedPair | None = None
    negatives: Negatives = []
    left_out: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    @property
    def documents(self) -> list[str]:
        """The documents with a role: the positive, the negatives, those that are left out."""
        if self.pair is None:
            return []
        left_out = sorted(frozenset().union(*self.left_out))
        return list(dict.fromkeys([self.pair.positive, *self.pair.negatives, *left_out]))

    def role_of(self, doc_id: str) -> Role | None:
        """What a document is for the pair; ``None``: nothing, or there is no pair."""
        if self.pair is None:
            return None
        if doc_id == self.pair.positive:
            return "positive"
        for rule, doc_ids in self.negatives:
            if doc_id in doc_ids:
                return rule
        relevant, unknown = self.left_out
        if doc_id in relevant:
            return "relevant in this run"
        return "unknown verdict" if doc_id in unknown else None


@dataclass(slots=True)
class _Browsed:
    """A browse with the reasoning about it."""

    browse: BrowseStep
    reasoning: ReasoningStep | None = None

    def takes(self, step: ReasoningStep) -> bool:
        """Whether the step is the reasoning about this browse."""
        return self.reasoning is None and (step.about is None or step.about == self.browse.doc_id)

    @property
    def judged(self) -> BrowseStep | ReasoningStep:
        """The step whose verdict counts: the reasoning's own, else that of the browse."""
        if self.reasoning is not None and self.reasoning.verdict is not None:
            return self.reasoning
        return self.browse

    @property
    def verdict(self) -> Verdict:
        """The verdict on its document."""
        return self.judged.verdict or "unknown"


class _Run:
    """A run that ended: the documents of its browses, by the verdicts on them."""

    def __init__(self, browses: list[_Browsed]) -> None:
        found: dict[Verdict, list[str]] = {"relevant": [], "irrelevant": [], "unknown": []}
        for browsed in browses:
            found[browsed.verdict].append(browsed.browse.doc_id)
        self.relevant, self.rejected = frozenset(found["relevant"]), found["irrelevant"]
        self.unknown = found["unknown"]


@dataclass(slots=True)
class _Phase:
    """What happened since the last run that found a relevant document."""

    searches: list[SearchStep] = field(default_factory=list)
    browsed: set[str] = field(default_factory=set)
    rejected: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def holding(self, doc_id: str) -> int | None:
        """Place of the latest search with the document among its hits."""
        for place in range(len(self.searches) - 1, -1, -1):
            if doc_id in self.searches[place].doc_ids:
                return place
        return None

    def queries_before(self, place: int) -> tuple[str, ...]:
        """The queries of the searches before one of them, each once, without that one's query."""
        queries = dict.fromkeys([search.query for search in self.searches[:place]])
        queries.pop(self.searches[place].query, None)
        return tuple(queries)


def decide(steps: Iterable[Step], profile: ProfileName) -> Iterator[Decision]:
    """What each browse of one trajectory gives, in order.

    Args:
        steps: in order; a gap is a :class:`~streams.mine.steps.BreakStep`.
        profile: decides the query and the negatives.
    """
    phase, browses = _Phase(), list[_Browsed]()
    for step in chain(steps, [BreakStep()]):
        if isinstance(step, BrowseStep):
            browses.append(_Browsed(step))
        elif isinstance(step, ReasoningStep) and browses and browses[-1].takes(step):
            browses[-1].reasoning = step
        else:
            if browses:
                run = _Run(browses)
                phase.browsed.update([browsed.browse.doc_id for browsed in browses])
                phase.unknown.update(run.unknown)
                for browsed in browses:
                    yield _decision(browsed, run, phase, profile)
                phase.rejected += run.rejected
                browses = []
                if run.relevant:
                    phase = _Phase()
            # A search without hits failed or found nothing: it does not change the query.
            if isinstance(step, SearchStep) and step.doc_ids:
                phase.searches.append(step)


def _decision(browsed: _Browsed, run: _Run, phase: _Phase, profile: ProfileName) -> Decision:
    browse, judged, verdict = browsed.browse, browsed.judged, browsed.verdict
    place = phase.holding(browse.doc_id)
    if place is None:
        return Decision(browse, verdict, "unknown" if verdict == "unknown" else "unsearched")
    holding = phase.searches[place]
    rank = holding.rank_of(browse.doc_id)
    if verdict == "unknown":
        return Decision(browse, verdict, "unknown", rank)
    if profile == "reference":
        asked, negatives = -1, _reference_negatives(browse.doc_id, run, phase)
    else:
        asked, negatives = place, _paper_negatives(browse.doc_id, holding, run, phase)
    in_order = list[str]()
    for _, doc_ids in negatives:
        in_order += doc_ids
    pair = MinedPair(
        query=phase.searches[asked].query,
        earlier_queries=phase.queries_before(asked),
        positive=browse.doc_id,
        negatives=tuple(in_order),
        verdict=verdict,
        judge=judged.judge,
        judge_version=judged.judge_version,
        rejected=sum([len(ids) for _, ids in takewhile(lambda n: n[0] in _REJECTED, negatives)]),
        rank=rank,
        reasoning_tokens=browsed.reasoning.tokens if browsed.reasoning else None,
        retriever_version=holding.retriever_version,
        browse_seq=browse.name if isinstance(browse.name, int) else None,
        browse_event_id=browse.name if isinstance(browse.name, str) else None,
    )
    left_out = (run.relevant, frozenset(phase.unknown))
    return Decision(browse, verdict, verdict, rank, pair, negatives, left_out)


def _reference_negatives(positive: str, run: _Run, phase: _Phase) -> Negatives:
    """Rejected in this run, rejected before, then hits not opened; each the latest first."""
    barred = {positive, *run.relevant}
    now = [doc_id for doc_id in dict.fromkeys(reversed(run.rejected)) if doc_id not in barred]
    barred.update(now)
    earlier = [doc_id for doc_id in dict.fromkeys(reversed(phase.rejected)) if doc_id not in barred]
    hits = chain.from_iterable([search.doc_ids for search in reversed(phase.searches)])
    unopened = dict.fromkeys(hits)
    for doc_id in phase.browsed:
        unopened.pop(doc_id, None)
    return [
        ("rejected in this run", now),
        ("rejected earlier", earlier),
        ("not opened", list(unopened)),
    ]


def _paper_negatives(positive: str, search: SearchStep, run: _Run, phase: _Phase) -> Negatives:
    """The other hits of the latest search with the document, but for unknown ones."""

    def rule_of(doc_id: str) -> Rule | None:
        if doc_id in run.rejected:
            return "rejected in this run"
        if doc_id in phase.rejected:
            return "rejected earlier"
        if doc_id in phase.unknown and doc_id not in run.relevant:
            return None
        return "another hit of the search"

    rules = [(doc_id, rule_of(doc_id)) for doc_id in dict.fromkeys(search.doc_ids)]
    kept = [(doc_id, rule) for doc_id, rule in rules if rule is not None and doc_id != positive]
    groups = groupby(kept, key=lambda one: one[1])
    return [(rule, [doc_id for doc_id, _ in group]) for rule, group in groups]
