"""The effect of a tenant that pushes one document: ``python -m benchmarks.poisoning``.

Scripted agents work on the demo's corpus; an attacker adds a tenth of the trajectories
(:mod:`benchmarks.adversary`). Three children are trained on these and compared by the gate: with
the caps of training and gate, without caps, and without the attacker. Quality is measured on unseen
needs with true labels. Every finished run is one line of the file ``--runs``.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks import kept
from benchmarks.adversary import PUSHED, trajectory
from benchmarks.in_memory import ExactIndex, Pairs, Texts, mined
from retrail_runtime import process
from schemas.pairs import LabelledPair
from schemas.releases import GateDecision
from schemas.runs import Caps
from schemas.settings import Settings
from simulation import fleet, stdlib_corpus
from simulation.corpus import Corpus
from simulation.demo import measure
from simulation.demo.flywheel import Plan
from simulation.scripted import draw
from trainer.data import examples
from trainer.data.caps import UNCAPPED
from trainer.data.draws import is_held_out
from trainer.data.selection import Selector, rules_of
from trainer.evaluate import evaluation, gate, queries
from trainer.fit import finetune
from trainer.model.encoder import Encoder
from trainer.model.presets import PRESETS

WAYS = ("caps", "no caps", "no attacker")
TURNS = 2

NO_CAPS = {
    f"train_cap_{name}": 1.0 for name in ("agent", "tenant", "trajectory", "query", "document")
}


@dataclass(frozen=True, slots=True)
class Run:
    """One child.

    Attributes:
        pushed_weight: share of the run's weight with the pushed document as positive.
        parent, child: nDCG@10 on unseen needs.
        seen: share of these whose ten best hits hold the pushed document.
        decision, reason: of the gate.
    """

    seed: int
    way: str
    pairs: int
    pushed_weight: float
    parent: float
    child: float
    seen: float
    queries: int
    difference: float
    decision: str
    reason: str
    seconds: float


def runs(seed: int, share: float, max_tokens: int, done: set[tuple[int, str]]) -> Iterator[Run]:
    """The children of one seed that are not done."""
    ways = [way for way in WAYS if (seed, way) not in done]
    if not ways:
        return
    settings = Settings(
        train_epochs=1,
        train_negatives=2,
        train_learning_rate=5e-5,
        index_max_tokens=max_tokens,
        train_seed=seed,
    )
    found = stdlib_corpus.load()
    corpus = Corpus(found.name, (*found.documents, PUSHED), found.training, found.unseen)
    parent = ExactIndex(Encoder.load(settings.model, max_tokens=max_tokens), corpus.documents)
    plan = Plan.of(corpus, TURNS, seed, None)
    todo = fleet.assignments(plan.needs(1), plan.agents, seed=seed, turn=1)
    honest = mined(fleet.watch(todo, parent.search_many).values(), settings)
    attacks = round(len(todo) * share / (1 - share))
    attacked = draw(seed, "attacked").choices(plan.needs(1), k=attacks)
    hits = parent.search_many([need.text for need in attacked])
    attacker = mined(
        (
            trajectory(need, some, seed, number)
            for number, (need, some) in enumerate(zip(attacked, hits, strict=True))
        ),
        settings,
    )
    for way in ways:
        pairs = honest if way == "no attacker" else [*honest, *attacker]
        yield _run(way, settings, corpus, parent, pairs)


def _run(
    way: str,
    settings: Settings,
    corpus: Corpus,
    parent: ExactIndex,
    mined_pairs: Sequence[LabelledPair],
) -> Run:
    began = time.monotonic()
    chosen_by = settings.model_copy(update=NO_CAPS) if way == "no caps" else settings
    pairs = Pairs()
    encode = parent.encoder.encode_queries
    rules, texts = rules_of(chosen_by), Texts(corpus.documents)
    selector = Selector(pairs, texts, rules, 1, settings.train_seed, encode)
    chosen = selector.select([pairs.add(mined_pairs)], []).examples
    report = finetune.finetune(
        parent.encoder, chosen, finetune.config_of(settings, PRESETS["minilm"])
    )
    child = ExactIndex(report.encoder, corpus.documents)
    limits = UNCAPPED if way == "no caps" else queries.caps_of(settings)
    decision = _gate(parent, child, mined_pairs, settings, limits)
    weights = [(example.weight, example.positive_id == PUSHED.doc_id) for example in chosen]
    hits = [
        {hit.doc_id for hit in some}
        for some in child.search_many([need.text for need in corpus.unseen])
    ]
    return Run(
        seed=settings.train_seed,
        way=way,
        pairs=len(chosen),
        pushed_weight=round(
            sum(w for w, pushed in weights if pushed) / sum(w for w, _ in weights), 4
        ),
        parent=measure.quality(corpus.unseen, parent.search_many).ndcg_at_10,
        child=measure.quality(corpus.unseen, child.search_many).ndcg_at_10,
        seen=round(sum(PUSHED.doc_id in some for some in hits) / len(hits), 4),
        queries=decision.held_out.queries if decision.held_out else 0,
        difference=decision.held_out.difference if decision.held_out else 0.0,
        decision=decision.decision,
        reason=decision.reason,
        seconds=round(time.monotonic() - began, 1),
    )


def _gate(
    parent: ExactIndex,
    child: ExactIndex,
    pairs: Sequence[LabelledPair],
    settings: Settings,
    limits: Caps,
) -> GateDecision:
    """Do what :func:`consumers.training.gate.compare` does, on known vectors."""
    held = [pair for pair in pairs if pair.verdict == "relevant" and is_held_out(pair.query)]
    trained = queries.trained_queries(examples.trainable(pairs).pairs)
    asked = queries.relevance(held, trained, limits, settings.train_seed)
    ids = [document.doc_id for document in parent.documents]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    before, after = (
        evaluation.evaluate_vectors(
            index.encoder, asked, [ids[i] for i in order], index.vectors[order]
        )
        for index in (parent, child)
    )
    found = gate.compare(before, after, relevant=asked, seed=settings.train_seed)
    return gate.decide(found, gate.Rule(settings.gate_margin, settings.gate_min_queries))


def rows(found: Sequence[Run]) -> Iterator[str]:
    """The table as Markdown."""
    yield (
        "| seed | | weight of the pushed document | child − parent, unseen needs "
        "| needs that see it in the first ten | gate |"
    )
    yield "|---:|---|---:|---:|---:|---|"
    for run in sorted(found, key=lambda run: (run.seed, WAYS.index(run.way))):
        yield (
            f"| {run.seed} | {run.way} | {run.pushed_weight:.1%} | {run.child - run.parent:+.4f} "
            f"| {run.seen:.1%} | {run.decision}, {run.difference:+.4f} over {run.queries} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the missing runs, then print the table of all runs in the file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.poisoning",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, required=True, help="file of finished runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--share", type=float, default=0.1, help="share of the attacker in all trajectories"
    )
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    process.configure("WARNING")
    if options.threads:
        torch.set_num_threads(options.threads)
    done = {(run["seed"], run["way"]) for run in kept.read(options.runs)}
    for seed in range(options.seeds):
        for run in runs(seed, options.share, options.max_tokens, done):
            kept.append(options.runs, asdict(run))
            print(f"seed {seed}, {run.way}: {run.reason} ({run.seconds:.0f} s)", flush=True)
    for line in rows([Run(**run) for run in kept.read(options.runs)]):
        print(line)


if __name__ == "__main__":
    main()
