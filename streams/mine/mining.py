"""From the steps of one trajectory to labelled pairs (LRAT, section 4).

A *run* is a maximal row of browses, each optionally followed by the reasoning that is about it; any
other step, or the close of the trajectory, ends it. When a run ends, each of its browses whose
document was among the hits gives a pair; a run with a relevant document starts a new search phase.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from msgspec import Struct

from schemas import ProfileName
from schemas.events import Verdict
from streams.mine.steps import BrowseStep, ReasoningStep, SearchStep, Step


class MinedPair(Struct, frozen=True, gc=False):
    """The pair of a browse; :class:`schemas.pairs.LabelledPair` adds fields of its trajectory.

    ``browse`` is the event's seq, or its event_id in an unnumbered trajectory.
    """

    browse: int | str
    query: str
    earlier_queries: tuple[str, ...]
    positive: str
    negatives: tuple[str, ...]
    verdict: Literal["relevant", "irrelevant"]
    judge: str
    judge_version: str
    reasoning_tokens: int | None
    rejected: int
    rank: int
    retriever_version: int | None


@dataclass(slots=True)
class _Browsed:
    browse: BrowseStep
    reasoning: ReasoningStep | None = None

    @property
    def judged(self) -> BrowseStep | ReasoningStep:
        """The step whose verdict counts: the reasoning's own, else that of the browse."""
        if self.reasoning is not None and self.reasoning.verdict is not None:
            return self.reasoning
        return self.browse

    @property
    def verdict(self) -> Verdict:
        return self.judged.verdict or "unknown"


@dataclass(slots=True)
class _Phase:
    """What happened since the last run that found a relevant document."""

    searches: list[SearchStep] = field(default_factory=list)
    browsed: set[str] = field(default_factory=set)
    rejected: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def queries_before(self, search: SearchStep) -> tuple[str, ...]:
        """The queries of the searches before one of them, each once, without that one's query."""
        before = takewhile(lambda earlier: earlier is not search, self.searches)
        queries = dict.fromkeys(earlier.query for earlier in before)
        return tuple(query for query in queries if query != search.query)

    def holding(self, doc_id: str) -> SearchStep | None:
        """The latest search with the document among its hits."""
        return next((s for s in reversed(self.searches) if doc_id in s.doc_ids), None)


def mine(
    steps: Iterable[Step], profile: ProfileName, counts: Counter[tuple[str, ...]] | None = None
) -> list[MinedPair]:
    """All pairs of one trajectory, in the order of its browses.

    Args:
        steps: in order; a gap is a :class:`~streams.mine.steps.BreakStep`.
        profile: decides the query and the negatives.
        counts: browses are counted here as ``("browses", verdict)``, those that give no pair as
            ``("browses", reason)``; and where their documents stood as ``("rank", verdict, rank)``.
    """
    tally: Counter[tuple[str, ...]] = Counter() if counts is None else counts
    pairs: list[MinedPair] = []
    phase, run = _Phase(), list[_Browsed]()
    for step in steps:
        match step:
            case BrowseStep():
                run.append(_Browsed(step))
            case ReasoningStep() if _is_about_last(step, run):
                run[-1].reasoning = step
            case _:
                phase = _end_run(run, phase, profile, pairs, tally)
                run = []
                # A search without hits failed, or found nothing: the query of what is opened next
                # is that of the search before.
                if isinstance(step, SearchStep) and step.doc_ids:
                    phase.searches.append(step)
    _end_run(run, phase, profile, pairs, tally)
    return pairs


def _is_about_last(step: ReasoningStep, run: list[_Browsed]) -> bool:
    if not run or run[-1].reasoning is not None:
        return False
    return step.about is None or step.about == run[-1].browse.doc_id


def _end_run(
    run: list[_Browsed],
    phase: _Phase,
    profile: ProfileName,
    pairs: list[MinedPair],
    tally: Counter[tuple[str, ...]],
) -> _Phase:
    """Emit the run's pairs; returns the phase that follows."""
    if not run:
        return phase
    relevant = {b.browse.doc_id for b in run if b.verdict == "relevant"}
    rejected = [b.browse.doc_id for b in run if b.verdict == "irrelevant"]
    phase.browsed.update(b.browse.doc_id for b in run)
    phase.unknown.update(b.browse.doc_id for b in run if b.verdict == "unknown")
    for browsed in run:
        holding, verdict = phase.holding(browsed.browse.doc_id), browsed.verdict
        if holding is not None:
            rank = holding.rank_of(browsed.browse.doc_id)
            tally["rank", verdict, str(rank)] += 1
        if verdict == "unknown":
            tally["browses", "unknown"] += 1
        elif holding is None:
            tally["browses", "unsearched"] += 1
        else:
            pairs.append(_pair(browsed, holding, rank, phase, relevant, rejected, profile))
            tally["browses", verdict] += 1
    phase.rejected.extend(rejected)
    return _Phase() if relevant else phase


def _pair(
    browsed: _Browsed,
    holding: SearchStep,
    rank: int,
    phase: _Phase,
    relevant: set[str],
    rejected: list[str],
    profile: ProfileName,
) -> MinedPair:
    positive, judged = browsed.browse.doc_id, browsed.judged
    if profile == "reference":
        asked = phase.searches[-1]
        candidates, barred = _reference_negatives(phase, rejected), relevant
    else:
        asked = holding
        known = set(rejected) | set(phase.rejected) | relevant
        candidates, barred = iter(holding.doc_ids), phase.unknown - known
    negatives = [d for d in dict.fromkeys(candidates) if d != positive and d not in barred]
    all_rejected = {*rejected, *phase.rejected}
    return MinedPair(
        browse=browsed.browse.name,
        query=asked.query,
        earlier_queries=phase.queries_before(asked),
        positive=positive,
        negatives=tuple(negatives),
        verdict="relevant" if browsed.verdict == "relevant" else "irrelevant",
        judge=judged.judge,
        judge_version=judged.judge_version,
        reasoning_tokens=browsed.reasoning.tokens if browsed.reasoning else None,
        rejected=sum(1 for _ in takewhile(all_rejected.__contains__, negatives)),
        rank=rank,
        retriever_version=holding.retriever_version,
    )


def _reference_negatives(phase: _Phase, rejected: list[str]) -> Iterator[str]:
    """Rejected in this run, rejected before, then hits never opened; each the latest first."""
    yield from reversed(rejected)
    yield from reversed(phase.rejected)
    for search in reversed(phase.searches):
        yield from (doc_id for doc_id in search.doc_ids if doc_id not in phase.browsed)
