"""One turn of the loop for a seed, learned from in several ways."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from benchmarks import oracle
from benchmarks.ablation import levers
from benchmarks.ablation.levers import Scored
from benchmarks.in_memory import ExactIndex, Pairs, Texts, mined
from schemas import ProfileName
from schemas.events import Search
from schemas.pairs import LabelledPair
from schemas.runs import TrainingConfig
from schemas.settings import Settings
from simulation import fleet
from simulation.corpus import Corpus, Need
from simulation.demo import measure
from simulation.demo.command import DEFAULTS
from simulation.demo.flywheel import Plan
from simulation.recording import watch
from simulation.scripted import HITS
from trainer.data import examples as choosing
from trainer.data.draws import is_held_out, normalize_query
from trainer.data.examples import TrainingExample
from trainer.data.selection import Selector, rules_of
from trainer.data.weighting import Variant
from trainer.evaluate import evaluation, gate
from trainer.evaluate.evaluation import QueryMetrics
from trainer.evaluate.queries import relevance
from trainer.fit import finetune
from trainer.fit.batching import Batch
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

LEVERS: dict[str, frozenset[str]] = {
    "earlier": frozenset({"earlier"}),
    "hard": frozenset({"hard"}),
    "masked": frozenset({"masked"}),
    "passes": frozenset({"passes"}),
    "levers": frozenset({"earlier", "hard", "masked", "passes"}),
}
"""Rows that train on the pairs of ``reweight`` with levers (:mod:`benchmarks.ablation.levers`)."""

FULL = "full"
"""The row of full supervision: the true labels of all needs that agents had."""

TURNS = 2
"""The needs of one turn of so many: as many as a turn of the demo has."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One way to learn from one seed's trajectories.

    Attributes:
        pairs, steps: that it trained on; none for the parent.
        true: share of the positives that serve the agent's need.
        found: share of the agents' needs with a document that serves and was shown to an agent.
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
    found: float | None = None


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

    def adjust(self, batch: Batch) -> Batch:
        """Mask what may be a false negative."""
        queries = self.parent.encoder.encode_queries(batch.queries)
        documents = self.parent.vectors[[self.rows[text] for text in batch.documents]]
        return levers.without_false_negatives(batch, queries @ documents.T)

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
        if variant == FULL:
            needs = {need.need_id: need for need in self.needs.values()}.values()
            hits = self.world.scored([need.text for need in needs], HITS)
            return levers.full_supervision(needs, hits, self.world.text.__getitem__)
        if variant in LEVERS:
            return self._pulled(LEVERS[variant])
        trained, profile = VARIANTS[variant]
        pairs = self.pairs if profile == "reference" else self.paper_pairs
        return self._selected(pairs, trained)

    def _pulled(self, wanted: frozenset[str]) -> Sequence[TrainingExample]:
        found = list(self.examples("reweight"))
        if "earlier" in wanted:
            found += levers.earlier(self.pairs, found, self._similarity)
        if "hard" in wanted:
            hits = self.world.scored([each.query for each in found], levers.MINED_DEPTH)
            vectors = self.world.parent.encoder.encode_queries([each.query for each in found])
            rows = [self.world.rows[each.positive_text] for each in found]
            scores = (vectors * self.world.parent.vectors[rows]).sum(axis=1)
            by_id = {each.pair_id: float(score) for each, score in zip(found, scores, strict=True)}
            found = levers.with_hard_negatives(found, hits, by_id)
        return found

    def _similarity(self, queries: Sequence[tuple[str, str]]) -> list[float]:
        encode = self.world.parent.encoder.encode_queries
        one, other = (encode([pair[side] for pair in queries]) for side in (0, 1))
        return [float(value) for value in (one * other).sum(axis=1)]

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
            example.positive_id in need_of[pair_id].relevant if pair_id in need_of else True
            for example in examples
            for pair_id in [example.pair_id.partition("/")[0]]
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
        config = finetune.config_of(turn.settings, PRESETS["minilm"])
        wanted = LEVERS.get(variant, frozenset({"passes"}) if variant == FULL else frozenset())
        train = partial(_train, turn, variant, world.adjust if "masked" in wanted else None)
        if "passes" in wanted:
            config = config.model_copy(update={"epochs": _passes(turn, examples, config, train)})
        child, steps = train(world.parent.encoder, examples, config)
        world.report(f"{variant}: measuring on {len(world.corpus.unseen):,} needs never seen")
        index = ExactIndex(child, world.corpus.documents)
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
        found=round(turn.found, 4),
    )


Train = Callable[[Encoder, Sequence[TrainingExample], TrainingConfig], tuple[Encoder, int]]


def _train(
    turn: Turn,
    variant: str,
    adjust: Callable[[Batch], Batch] | None,
    encoder: Encoder,
    examples: Sequence[TrainingExample],
    config: TrainingConfig,
) -> tuple[Encoder, int]:
    """The child and the number of its steps."""

    def on_step(step: finetune.Step) -> None:
        turn.world.report(
            f"seed {turn.seed}: {variant}: step {step.step}/{step.steps}, loss {step.loss:.3f}"
        )

    report = finetune.finetune(encoder, examples, config, adjust=adjust, on_step=on_step)
    return report.encoder, len(report.steps)


def _passes(
    turn: Turn, examples: Sequence[TrainingExample], config: TrainingConfig, train: Train
) -> int:
    """The number of passes after which a held-back part of the queries stops improving.

    Each pass has a whole schedule of its learning rate; the child is then trained on all examples.
    """
    fitted, back = levers.held_back(examples)
    relevant: dict[str, dict[str, int]] = {}
    for each in back:
        relevant.setdefault(each.query, {})[each.positive_id] = 1
    needs = [Need(query, query, some) for query, some in relevant.items()]

    def values() -> Iterator[float]:
        child = turn.world.parent.encoder
        for number in itertools.count():
            once = config.model_copy(update={"epochs": 1, "seed": config.seed + 1_000 * number})
            child, _ = train(child, fitted, once)
            index = ExactIndex(child, turn.world.corpus.documents)
            found = measure.by_need(needs, index.search_many)
            yield sum(each.ndcg_at_10 for each in found) / len(found)

    return levers.best_pass(values())


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
