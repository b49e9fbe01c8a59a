"""What agents of one seed did in a turn, and what can be learned from it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from benchmarks import oracle
from benchmarks.ablation import levers
from benchmarks.ablation.levers import Scored
from benchmarks.in_memory import ExactIndex, Pairs, Texts, mined
from schemas import ProfileName
from schemas.events import End, Search
from schemas.pairs import LabelledPair
from schemas.runs import EarlierRule
from schemas.settings import OutcomePolicy, Settings
from simulation import fleet
from simulation.corpus import Corpus, Need
from simulation.demo import measure
from simulation.demo.command import DEFAULTS
from simulation.demo.flywheel import Plan
from simulation.scripted import HITS, digest, draw
from trainer.data.earlier import RULE
from trainer.data.examples import TrainingExample
from trainer.data.selection import Selector, rules_of
from trainer.data.weighting import Variant
from trainer.evaluate.evaluation import QueryMetrics
from trainer.fit.batching import Batch
from trainer.model.encoder import Encoder

VARIANTS: dict[str, tuple[Variant, ProfileName]] = {
    "naive": ("naive", "reference"),
    "filter": ("filter", "reference"),
    "reweight": ("reweight", "reference"),
    "paper": ("reweight", "paper"),
    "naive-whole": ("naive", "reference"),
}
"""Rows of the ablation but for the oracle and the parent: how pairs train, how they are mined.

``naive`` has as many pairs as ``filter``, drawn from all browsed documents, so that what differs
are the labels and not the number of steps; ``naive-whole`` takes all of them.
"""

LEVERS = (
    *("earlier", "spans", "hard", "masked"),
    *("passes", "agree", "correct", "plausible", "explore"),
)
"""What can be added to ``reweight``, alone or joined by ``+`` (:mod:`benchmarks.ablation.levers`).

``agree`` is the outcome policy ``weight``, ``correct`` is ``correct_only``.
"""

POLICIES: dict[str, OutcomePolicy] = {"agree": "weight", "correct": "correct_only"}

ORACLE = "oracle"
"""The row of the oracle, with as many examples as ``filter``; ``oracle+earlier`` has as many as
``earlier``."""

FULL = "full"
"""The row of full supervision: the true labels of all needs that agents had."""

TURNS = 2
"""The needs of one turn of so many: as many as a turn of the demo has."""

Report = Callable[[str], None]


def levers_of(variant: str) -> frozenset[str]:
    """The levers of a variant; none if it is not made of levers alone."""
    names = frozenset(variant.split("+"))
    return names if names <= frozenset(LEVERS) else frozenset()


class World:
    """A corpus and the retriever that agents search with, encoded once."""

    def __init__(self, corpus: Corpus, report: Report, live: ExactIndex | None = None) -> None:
        """``live`` is the retriever; by default the untrained one."""
        self.corpus, self.report, self._live = corpus, report, live
        self.settings = Settings(**{k: v for k, v in DEFAULTS.items() if k != "partitions"})
        self.texts = Texts(corpus.documents)
        self.text = {d.doc_id: d.embedded_text() for d in corpus.documents}

    @cached_property
    def parent(self) -> ExactIndex:
        """The retriever that agents search with, and that children are trained from."""
        if self._live is not None:
            return self._live
        self.report(f"encoding {len(self.corpus.documents):,} documents")
        encoder = Encoder.load(self.settings.model, max_tokens=self.settings.index_max_tokens)
        return ExactIndex(encoder, self.corpus.documents)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of each text among the parent's vectors."""
        return {d.embedded_text(): row for row, d in enumerate(self.corpus.documents)}

    def scored(self, queries: Sequence[str], depth: int) -> dict[str, list[Scored]]:
        """The parent's best hits of each query."""
        distinct = list(dict.fromkeys(queries))
        vectors = self.parent.encoder.encode_queries(distinct)
        found = {}
        for query, row in zip(distinct, vectors @ self.parent.vectors.T, strict=True):
            some = [self.corpus.documents[i] for i in np.argsort(-row, kind="stable")[:depth]]
            found[query] = [
                Scored(d.doc_id, text, float(row[self.rows[text]]))
                for d in some
                for text in [d.embedded_text()]
            ]
        return found

    def labelled(self, needs: Iterable[Need]) -> list[TrainingExample]:
        """Examples of the true labels of all needs."""
        distinct = {need.need_id: need for need in needs}.values()
        hits = self.scored([need.text for need in distinct], HITS)
        return levers.full_supervision(distinct, hits, self.text.__getitem__)

    def adjust(self, batch: Batch) -> Batch:
        """Mask what may be a false negative."""
        queries = self.parent.encoder.encode_queries(batch.queries)
        documents = self.parent.vectors[[self.rows[text] for text in batch.documents]]
        return levers.without_false_negatives(batch, queries @ documents.T)

    def measured(self, index: ExactIndex) -> list[QueryMetrics]:
        """Of each need never seen."""
        return measure.by_need(self.corpus.unseen, index.search_many)


class Turn:
    """What agents of one seed did, and what can be learned from it.

    Attributes:
        before: the turn that the world's retriever has learned from.
        number: 1, or 2 if there is one before.
    """

    def __init__(
        self, world: World, seed: int, *, explores: bool = False, before: "Turn | None" = None
    ) -> None:
        self.world, self.seed, self.explores, self.before = world, seed, explores, before
        self.settings = world.settings.model_copy(update={"train_seed": seed})
        plan = Plan.of(world.corpus, TURNS, seed, None)
        self.number = 1 if before is None else 2
        needs = plan.needs(self.number)
        self.todo = fleet.assignments(needs, plan.agents, seed=seed, turn=self.number)
        self.needs = {task.mind.trajectory_id: task.need for task in self.todo}

    @cached_property
    def trajectories(self) -> Mapping[str, Sequence[oracle.Event]]:
        """The events of every agent."""
        self.world.report(f"seed {self.seed}: {len(self.todo):,} agents at work")
        search = self.world.parent.search_many
        return fleet.watch(
            self.todo, partial(search, choose=self._chosen) if self.explores else search
        )

    def _chosen(self, query: str, order: NDArray[np.intp]) -> Sequence[int]:
        best = order[: HITS * levers.EXPLORED_DEPTH].tolist()
        return levers.explored(best, HITS, draw(self.seed, "explore", query))

    @cached_property
    def pairs(self) -> list[LabelledPair]:
        """What profile ``reference`` mines."""
        return self._mined("reference")

    @cached_property
    def paper_pairs(self) -> list[LabelledPair]:
        """What profile ``paper`` mines."""
        return self._mined("paper")

    def _mined(self, profile: ProfileName) -> list[LabelledPair]:
        trajectories = self.trajectories
        self.world.report(f"seed {self.seed}: judging and mining by profile {profile}")
        settings = self.settings.model_copy(update={"profile": profile})
        return mined(trajectories.values(), settings)

    def examples(self, variant: str) -> Sequence[TrainingExample]:
        """What a variant trains on."""
        if variant == "naive":
            return self._selected(self.pairs, "naive", len(self.examples("filter")))
        if variant.startswith(ORACLE):
            return self._known(variant, variant.removeprefix(ORACLE).lstrip("+") or "filter")
        if variant == FULL:
            return self.world.labelled(self.needs.values())
        if wanted := levers_of(variant):
            return self._pulled(wanted)
        trained, profile = VARIANTS[variant]
        pairs = self.pairs if profile == "reference" else self.paper_pairs
        return self._selected(pairs, trained)

    def _known(self, variant: str, equal: str) -> list[TrainingExample]:
        """The oracle's examples, as many new and replayed ones as the variant ``equal`` has."""
        like = self.examples(equal)
        old = {pair.pair_id for pair in self.before.pairs} if self.before else set()
        replayed = sum(each.pair_id in old for each in like)
        found = oracle.examples(
            self.trajectories,
            self.needs,
            self.world.text.__getitem__,
            count=len(like) - replayed,
            seed=self.seed,
        )
        again = sorted(
            self.before.examples(variant) if self.before else (),
            key=lambda each: digest(self.seed, "again", each.pair_id),
        )
        return [*found, *again[:replayed]]

    def _pulled(self, wanted: frozenset[str]) -> Sequence[TrainingExample]:
        policy = next((POLICIES[name] for name in wanted & POLICIES.keys()), "all")
        rule = RULE if "earlier" in wanted else None
        found = list(self._selected(self.pairs, "reweight", policy=policy, earlier=rule))
        if "plausible" in wanted:
            found = levers.plausible(found, self._scores(found))
        if "hard" in wanted:
            hits = self.world.scored([each.query for each in found], levers.MINED_DEPTH)
            scores = {
                each.pair_id: positive
                for each, (positive, _) in zip(found, self._scores(found), strict=True)
            }
            found = levers.with_hard_negatives(found, hits, scores)
        if "spans" in wanted:
            documents = list(self.world.text.items())
            found += levers.spans(documents, len(found), draw(self.seed, "spans"))
        return found

    def _scores(self, examples: Sequence[TrainingExample]) -> list[tuple[float, list[float]]]:
        """What the parent gives to each example's positive and negatives."""
        parent, rows = self.world.parent, self.world.rows
        found = []
        queries = parent.encoder.encode_queries([each.query for each in examples])
        for each, query in zip(examples, queries, strict=True):
            texts = [each.positive_text, *(text for _, text in each.negatives)]
            scores = parent.vectors[[rows[text] for text in texts]] @ query
            found.append((float(scores[0]), [float(score) for score in scores[1:]]))
        return found

    @cached_property
    def found(self) -> float:
        """Share of needs with a document that serves and was shown to an agent."""
        shown = {
            self.needs[name].need_id
            for name, events in self.trajectories.items()
            for event in events
            if isinstance(event, Search)
            and self.needs[name].relevant.keys() & {hit.doc_id for hit in event.hits}
        }
        return len(shown) / len({need.need_id for need in self.needs.values()})

    @cached_property
    def correct(self) -> float:
        """Share of trajectories that ended with a correct answer."""
        ends = [events[-1] for events in self.trajectories.values()]
        return sum(isinstance(e, End) and e.outcome == "correct" for e in ends) / len(ends)

    def _selected(
        self,
        mined: Sequence[LabelledPair],
        variant: Variant,
        limit: int | None = None,
        policy: OutcomePolicy = "all",
        earlier: EarlierRule | None = None,
    ) -> Sequence[TrainingExample]:
        pairs = Pairs()
        before = [pairs.add(self.before.pairs)] if self.before else []
        ranges = [pairs.add(mined)]
        changes = {"outcome_policy": policy, "earlier": earlier}
        rules = rules_of(self.settings).model_copy(update=changes)
        selector = Selector(
            pairs,
            self.world.texts,
            rules if limit is None else rules.model_copy(update={"limit": limit}),
            1,
            self.seed,
            self.world.parent.encoder.encode_queries,
            variant=variant,
        )
        return selector.select(ranges, before).examples

    def true(self, examples: Sequence[TrainingExample]) -> float:
        """Share of positives that serve the need of their trajectory."""
        turns = [self, *([self.before] if self.before else [])]
        need_of = {
            pair.pair_id: turn.needs[pair.trajectory_id]
            for turn in turns
            for pair in (*turn.pairs, *turn.paper_pairs)
        }
        serves = [
            example.positive_id in need_of[pair_id].relevant if pair_id in need_of else True
            for example in examples
            for pair_id in [example.found_by or example.pair_id]
        ]
        return sum(serves) / len(serves)
