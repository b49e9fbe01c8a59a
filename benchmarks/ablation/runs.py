"""One turn of the loop for a seed, learned from in several ways."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmarks import oracle
from benchmarks.in_memory import ExactIndex, Pairs, Texts, mined
from schemas import ProfileName
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from simulation import fleet
from simulation.corpus import Corpus
from simulation.demo import measure
from simulation.demo.command import DEFAULTS
from simulation.demo.flywheel import Plan
from simulation.recording import watch
from trainer.data import examples as choosing
from trainer.data.draws import is_held_out, normalize_query
from trainer.data.examples import TrainingExample
from trainer.data.selection import Selector, rules_of
from trainer.data.weighting import Variant
from trainer.evaluate import evaluation, gate
from trainer.evaluate.evaluation import QueryMetrics
from trainer.evaluate.queries import relevance
from trainer.fit import finetune
from trainer.model.encoder import Encoder
from trainer.model.presets import PRESETS

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

TURNS = 2
"""The needs of one turn of so many: as many as a turn of the demo has."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One way to learn from one seed's trajectories.

    Attributes:
        pairs, steps: that it trained on; none for the parent.
        true: share of the positives that serve the agent's need.
        ndcg: nDCG@10 of each need never seen, in their order.
        recall: mean recall@10 over these.
        held_out: child - parent in nDCG@10 on the agents' held-out queries, as the gate sees them:
            a list for each cluster of queries; of ``reweight`` alone.
    """

    corpus: str
    seed: int
    variant: str
    pairs: int
    steps: int
    true: float
    ndcg: tuple[float, ...]
    recall: float
    seconds: float
    held_out: tuple[tuple[float, ...], ...] = ()


class World:
    """A corpus and the untrained retriever over it, encoded once for all seeds."""

    def __init__(self, corpus: Corpus, report: Report) -> None:
        self.corpus, self.report = corpus, report
        self.settings = Settings(**{k: v for k, v in DEFAULTS.items() if k != "partitions"})
        self.texts = Texts(corpus.documents)
        self.text = {d.doc_id: d.embedded_text() for d in corpus.documents}

    @cached_property
    def parent(self) -> ExactIndex:
        """The untrained retriever."""
        self.report(f"encoding {len(self.corpus.documents):,} documents")
        encoder = Encoder.load(self.settings.model, max_tokens=self.settings.index_max_tokens)
        return ExactIndex(encoder, self.corpus.documents)

    def measured(self, index: ExactIndex) -> list[QueryMetrics]:
        """Of each need never seen."""
        return measure.by_need(self.corpus.unseen, index.search_many)


class Turn:
    """What agents of one seed did, and what can be learned from it."""

    def __init__(self, world: World, seed: int, agents: int | None) -> None:
        self.world, self.seed = world, seed
        self.settings = world.settings.model_copy(update={"train_seed": seed})
        plan = Plan.of(world.corpus, TURNS, seed, agents)
        self.todo = fleet.assignments(plan.needs(1), plan.agents, seed=seed, turn=1)
        self.needs = {task.mind.trajectory_id: task.need for task in self.todo}

    @cached_property
    def trajectories(self) -> Mapping[str, Sequence[oracle.Event]]:
        """The events of every agent."""
        self.world.report(f"seed {self.seed}: {len(self.todo):,} agents at work")
        return watch(self.todo, self.world.parent.search_many)

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
        if variant == "oracle":
            return oracle.examples(
                self.trajectories,
                self.needs,
                self.world.text.__getitem__,
                count=len(self.examples("filter")),
                seed=self.seed,
            )
        trained, profile = VARIANTS[variant]
        pairs = self.pairs if profile == "reference" else self.paper_pairs
        return self._selected(pairs, trained)

    def _selected(
        self, mined: Sequence[LabelledPair], variant: Variant, limit: int | None = None
    ) -> Sequence[TrainingExample]:
        pairs = Pairs()
        ranges, rules = [pairs.add(mined)], rules_of(self.settings)
        selector = Selector(
            pairs,
            self.world.texts,
            rules if limit is None else rules.model_copy(update={"limit": limit}),
            1,
            self.seed,
            variant=variant,
        )
        return selector.select(ranges, []).examples

    def true(self, examples: Sequence[TrainingExample]) -> float:
        """Share of positives that serve the need of their trajectory."""
        mined = (*self.pairs, *self.paper_pairs)
        need_of = {pair.pair_id: self.needs[pair.trajectory_id] for pair in mined}
        serves = [
            example.positive_id in need_of[example.pair_id].relevant
            if example.pair_id in need_of
            else True
            for example in examples
        ]
        return sum(serves) / len(serves)


def held_out(turn: Turn, child: ExactIndex) -> tuple[tuple[float, ...], ...]:
    """Child - parent on the held-out queries of the turn, by cluster."""
    held = [p for p in turn.pairs if p.verdict == "relevant" and is_held_out(p.query)]
    trained = {normalize_query(pair.query) for pair in choosing.trainable(turn.pairs).pairs}
    queries = relevance(held, trained)
    before, after = (_of_queries(index, queries) for index in (turn.world.parent, child))
    asked = sorted(before)
    clusters: dict[int, list[float]] = {}
    for query, number in zip(asked, gate.clusters(asked, queries), strict=True):
        difference = after[query].ndcg_at_10 - before[query].ndcg_at_10
        clusters.setdefault(number, []).append(round(difference, 6))
    return tuple(map(tuple, clusters.values()))


def _of_queries(index: ExactIndex, queries: evaluation.Judgements) -> Mapping[str, QueryMetrics]:
    ids = [document.doc_id for document in index.documents]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return evaluation.evaluate_vectors(
        index.encoder, queries, [ids[i] for i in order], index.vectors[order]
    )


def run(turn: Turn, variant: str) -> Run:
    """Train a child as the variant does and measure it; ``parent`` is measured as it is."""
    world, began = turn.world, time.monotonic()
    examples: Sequence[TrainingExample] = ()
    index, steps = world.parent, 0
    if variant != "parent":
        examples = turn.examples(variant)
        name = f"seed {turn.seed}: {variant}"

        def on_step(step: finetune.Step) -> None:
            world.report(f"{name}: step {step.step}/{step.steps}, loss {step.loss:.3f}")

        config = finetune.config_of(turn.settings, PRESETS["minilm"])
        report = finetune.finetune(world.parent.encoder, examples, config, on_step=on_step)
        steps = len(report.steps)
        world.report(f"{name}: measuring on {len(world.corpus.unseen):,} needs never seen")
        index = ExactIndex(report.encoder, world.corpus.documents)
    found = world.measured(index)
    return Run(
        corpus=world.corpus.name,
        seed=turn.seed,
        variant=variant,
        pairs=len(examples),
        steps=steps,
        true=round(turn.true(examples), 4) if examples else 0.0,
        ndcg=tuple(round(each.ndcg_at_10, 6) for each in found),
        recall=round(sum(each.recall_at_10 for each in found) / len(found), 6),
        seconds=round(time.monotonic() - began, 1),
        held_out=held_out(turn, index) if variant == "reweight" else (),
    )


def runs(
    world: World, seeds: Sequence[int], variants: Sequence[str], done: set[tuple[int, str]]
) -> Iterator[Run]:
    """What is not done yet, a seed after the other."""
    for seed in seeds:
        missing = [variant for variant in variants if (seed, variant) not in done]
        if missing:
            turn = Turn(world, seed, None)
            for variant in missing:
                yield run(turn, variant)
