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
from schemas.pairs import PairVerdict
from streams.mine.steps import BrowseStep, ReasoningStep, SearchStep, Step

BrowseResult = Literal["relevant", "irrelevant", "unknown", "unsearched"]


class MinedPair(Struct, frozen=True, gc=False):
    """The pair of a browse; :class:`schemas.pairs.LabelledPair` adds fields of its trajectory.

    ``browse`` is the event's seq, or its event_id in an unnumbered trajectory.
    """

    browse: int | str
    query: str
    earlier_queries: tuple[str, ...]
    positive: str
    negatives: tuple[str, ...]
    verdict: PairVerdict
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
        queries: dict[str, None] = {}
        for earlier in self.searches:
            if earlier is search:
                break
            queries[earlier.query] = None
        queries.pop(search.query, None)
        return tuple(queries)

    def holding(self, doc_id: str) -> SearchStep | None:
        """The latest search with the document among its hits."""
        return next((s for s in reversed(self.searches) if doc_id in s.doc_ids), None)


@dataclass(slots=True)
class _Mining:
    """One trajectory while its steps are read."""

    profile: ProfileName
    counts: Counter[tuple[str, ...]]
    pairs: list[MinedPair] = field(default_factory=list)
    phase: _Phase = field(default_factory=_Phase)
    run: list[_Browsed] = field(default_factory=list)

    def read(self, steps: Iterable[Step]) -> None:
        """Read all steps."""
        for step in steps:
            match step:
                case BrowseStep():
                    self.run.append(_Browsed(step))
                case ReasoningStep() if self._is_about_last(step):
                    self.run[-1].reasoning = step
                case _:
                    self._end_run()
                    # A search without hits failed or found nothing: it does not change the query.
                    if isinstance(step, SearchStep) and step.doc_ids:
                        self.phase.searches.append(step)
        self._end_run()

    def _is_about_last(self, step: ReasoningStep) -> bool:
        if not self.run or self.run[-1].reasoning is not None:
            return False
        return step.about is None or step.about == self.run[-1].browse.doc_id

    def _end_run(self) -> None:
        """Make the run's pairs; a relevant document among them starts a new phase."""
        if not self.run:
            return
        phase, run, self.run = self.phase, self.run, []
        relevant = {b.browse.doc_id for b in run if b.verdict == "relevant"}
        rejected = [b.browse.doc_id for b in run if b.verdict == "irrelevant"]
        phase.browsed.update(b.browse.doc_id for b in run)
        phase.unknown.update(b.browse.doc_id for b in run if b.verdict == "unknown")
        for browsed in run:
            holding, verdict = phase.holding(browsed.browse.doc_id), browsed.verdict
            if holding is not None:
                rank = holding.rank_of(browsed.browse.doc_id)
                self.counts["rank", verdict, str(rank)] += 1
            result: BrowseResult = verdict
            if verdict != "unknown":
                if holding is None:
                    result = "unsearched"
                else:
                    self.pairs.append(self._pair(browsed, holding, relevant, rejected))
            self.counts["browses", result] += 1
        phase.rejected.extend(rejected)
        if relevant:
            self.phase = _Phase()

    def _pair(
        self, browsed: _Browsed, holding: SearchStep, relevant: set[str], rejected: list[str]
    ) -> MinedPair:
        phase, positive, judged = self.phase, browsed.browse.doc_id, browsed.judged
        all_rejected = {*rejected, *phase.rejected}
        if self.profile == "reference":
            asked = phase.searches[-1]
            candidates, barred = _reference_negatives(phase, rejected), relevant
        else:
            asked = holding
            candidates, barred = iter(holding.doc_ids), phase.unknown - all_rejected - relevant
        negatives = [d for d in dict.fromkeys(candidates) if d != positive and d not in barred]
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
            rank=holding.rank_of(positive),
            retriever_version=holding.retriever_version,
        )


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
    mining = _Mining(profile, Counter() if counts is None else counts)
    mining.read(steps)
    return mining.pairs


def _reference_negatives(phase: _Phase, rejected: list[str]) -> Iterator[str]:
    """Rejected in this run, rejected before, then hits not browsed; each the latest first."""
    yield from reversed(rejected)
    yield from reversed(phase.rejected)
    for search in reversed(phase.searches):
        yield from (doc_id for doc_id in search.doc_ids if doc_id not in phase.browsed)
