"""Children trained on one seed's trajectories in several ways, and measured."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.ablation import levers
from benchmarks.ablation.turns import FULL, Turn, World, levers_of
from benchmarks.in_memory import ExactIndex
from schemas.runs import TrainingConfig
from simulation.corpus import Need
from simulation.demo import measure
from trainer.data import examples as choosing
from trainer.data.draws import is_held_out
from trainer.data.examples import TrainingExample
from trainer.evaluate import evaluation, gate
from trainer.evaluate.evaluation import QueryMetrics
from trainer.evaluate.queries import relevance, trained_queries
from trainer.fit import finetune
from trainer.fit.finetune import TrainingReport
from trainer.model.encoder import Encoder
from trainer.model.presets import PRESETS


@dataclass(frozen=True, slots=True)
class Run:
    """One way to learn from one seed's trajectories.

    Attributes:
        pairs, steps: that it trained on; none for the parent.
        true: share of the positives that serve the agent's need.
        turn: 1 for agents that search with the untrained retriever, which is ``parent``; 2 for
            those that search with its child of the variant ``earlier``, which is ``parent`` then.
        found: share of the agents' needs with a document that serves and was shown to an agent.
        correct: share of the agents that ended with a correct answer.
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
    correct: float | None = None
    turn: int = 1


def held_out(turn: Turn, child: ExactIndex) -> tuple[tuple[float, ...], ...]:
    """Child - parent on the held-out queries of the turn, by cluster."""
    held = [p for p in turn.pairs if p.verdict == "relevant" and is_held_out(p.query)]
    queries = relevance(held, trained_queries(choosing.trainable(turn.pairs).pairs))
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
        wanted = frozenset({"passes"}) if variant == FULL else levers_of(variant)
        train = partial(
            finetune.finetune,
            adjust=world.adjust if "masked" in wanted else None,
            on_step=lambda step: world.report(
                f"seed {turn.seed}: {variant}: step {step.step}/{step.steps}, loss {step.loss:.3f}"
            ),
        )
        if "passes" in wanted:
            epochs = passes(world.parent, examples, config, train)
            config = config.model_copy(update={"epochs": epochs})
        report = train(world.parent.encoder, examples, config)
        steps = len(report.steps)
        world.report(f"{variant}: measuring on {len(world.corpus.unseen):,} needs never seen")
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
        found=round(turn.found, 4),
        correct=round(turn.correct, 4),
        turn=turn.number,
    )


Train = Callable[[Encoder, Sequence[TrainingExample], TrainingConfig], TrainingReport]


def passes(
    parent: ExactIndex,
    examples: Sequence[TrainingExample],
    config: TrainingConfig,
    train: Train = finetune.finetune,
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
        child = parent.encoder
        for number in itertools.count():
            once = config.model_copy(update={"epochs": 1, "seed": config.seed + 1_000 * number})
            child = train(child, fitted, once).encoder
            index = ExactIndex(child, parent.documents)
            found = measure.by_need(needs, index.search_many)
            yield sum(each.ndcg_at_10 for each in found) / len(found)

    return levers.best_pass(values())


def runs(
    world: World,
    seeds: Sequence[int],
    variants: Sequence[str],
    done: set[tuple[int, str]],
    *,
    second: bool = False,
) -> Iterator[Run]:
    """What is not done yet, a seed after the other, of the first turn or of the second."""
    for seed in seeds:
        missing = [variant for variant in variants if (seed, variant) not in done]
        if missing:
            before = Turn(world, seed) if second else None
            now = World(world.corpus, world.report, _child(before)) if before else world
            turns = {
                explores: Turn(now, seed, explores=explores, before=before)
                for explores in (False, True)
            }
            for variant in missing:
                yield run(turns["explore" in levers_of(variant)], variant)


def _child(turn: Turn) -> ExactIndex:
    """What serves after a turn: trained as the system trains by default."""
    config = finetune.config_of(turn.settings, PRESETS["minilm"])
    report = finetune.finetune(turn.world.parent.encoder, turn.examples("earlier"), config)
    return ExactIndex(report.encoder, turn.world.corpus.documents)
