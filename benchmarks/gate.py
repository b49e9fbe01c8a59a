"""How often the gate errs, by margin and number of queries: ``python -m benchmarks.gate``.

1. Real differences in nDCG@10 between a child and its parent, most of them 0. By default a child of
   the default model is trained on half the needs of the demo's corpus, and both answer the other
   half; ``--differences FILE`` keeps these, and takes them from there the next time. With ``--runs
   FILE`` they are those that the gate saw in the runs of ``benchmarks.ablation``: queries that
   agents asked, in the clusters that share a document.
2. Worlds in which the child is worse by .02, just as good, or better by .03 are made of them by
   weights (exponential tilting: the world closest to the measured one that has this mean). So the
   differences keep their values, and many stay exactly 0.
3. From each world clusters are drawn until there are n queries, again and again, and the gate
   decides on each draw.
"""

import argparse
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import kept
from schemas.releases import Decision
from schemas.runs import TrainingConfig
from simulation import stdlib_corpus
from trainer.data.examples import TrainingExample
from trainer.evaluate import evaluation
from trainer.evaluate.gate import Rule, bootstrap_interval, verdict
from trainer.fit import finetune
from trainer.model.encoder import Encoder
from trainer.model.location import MINILM

MARGINS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)
QUERIES = (50, 100, 200, 500)
WORLDS = (-0.02, 0.0, 0.03)
RESAMPLES = 1000
"""Of one draw; the gate itself takes more, which only smooths its bounds."""

Values = NDArray[np.float64]
Clusters = Sequence[Sequence[float]]
"""Differences of queries, those that share a document together."""

Sample = tuple[list[float], list[int]]


def measured_differences(epochs: int) -> list[float]:
    """Child - parent in nDCG@10, of each need that nothing was trained on."""
    corpus = stdlib_corpus.load()
    texts = {document.doc_id: document.embedded_text() for document in corpus.documents}
    parent = Encoder.load(MINILM, max_tokens=128)
    examples = [
        TrainingExample(need.need_id, need.text, doc_id, texts[doc_id], (), 1.0)
        for need in corpus.training
        for doc_id in sorted(need.relevant)
    ]
    config = TrainingConfig(
        epochs=epochs,
        batch=32,
        negatives=0,
        learning_rate=5e-5,
        temperature=0.05,
        max_tokens=128,
        seed=0,
    )
    print(f"training on {len(examples)} needs", flush=True)
    child = finetune.finetune(
        parent,
        examples,
        config,
        on_step=lambda step: print(
            f"  step {step.step}/{step.steps}, loss {step.loss:.3f}", flush=True
        ),
    ).encoder
    asked = {need.text: set(need.relevant) for need in corpus.unseen}
    print(f"asking both for {len(asked)} other needs", flush=True)
    before, after = (evaluation.evaluate(model, asked, texts) for model in (parent, child))
    return [after[query].ndcg_at_10 - before[query].ndcg_at_10 for query in sorted(before)]


def tilted(values: Values, mean: float) -> Values:
    """Weights under which the mean of ``values`` is ``mean``; they sum to 1.

    Raises:
        ValueError: no weights give that mean.
    """
    if not values.min() < mean < values.max():
        raise ValueError(f"no weights give the mean {mean}")

    def weights(slope: float) -> Values:
        exponents = slope * values
        found = np.exp(exponents - exponents.max())
        weighted: Values = found / found.sum()
        return weighted

    low, high = -1000.0, 1000.0
    for _ in range(200):
        middle = (low + high) / 2
        if weights(middle) @ values < mean:
            low = middle
        else:
            high = middle
    return weights((low + high) / 2)


def world(clusters: Clusters, mean: float) -> Values:
    """Weights of clusters under which the mean over queries is ``mean``."""
    return tilted(np.asarray([math.fsum(some) - mean * len(some) for some in clusters]), 0.0)


def drawn(clusters: Clusters, weights: Values, queries: int, rng: np.random.Generator) -> Sample:
    """So many queries of clusters drawn by weight, and the cluster of each."""
    differences: list[float] = []
    members: list[int] = []
    # Every cluster has at least one query.
    for number, index in enumerate(rng.choice(len(clusters), size=queries, p=weights)):
        some = clusters[index][: queries - len(differences)]
        differences += some
        members += [number] * len(some)
        if len(differences) == queries:
            break
    return differences, members


def decisions(
    clusters: Clusters, weights: Values, queries: int, draws: int, seed: int
) -> dict[float, Counter[Decision]]:
    """How often the gate decides what, by margin."""
    rng = np.random.default_rng([seed, queries])
    found: dict[float, Counter[Decision]] = {margin: Counter() for margin in MARGINS}
    for number in range(draws):
        differences, members = drawn(clusters, weights, queries, rng)
        difference = math.fsum(differences) / queries
        interval = bootstrap_interval(differences, members, seed=number, resamples=RESAMPLES)
        for margin in MARGINS:
            found[margin][verdict(difference, interval, queries, Rule(margin, 1))[0]] += 1
    return found


def rows(clusters: Clusters, draws: int, seed: int) -> Iterator[str]:
    """The table as Markdown, in per cent."""
    yield (
        "| n | margin | "
        + " | ".join(f"{mean:+.2f}: ships | held | rejected" for mean in WORLDS)
        + " |"
    )
    yield "|" + "---:|" * (2 + 3 * len(WORLDS))
    for queries in QUERIES:
        by_world = [
            decisions(clusters, world(clusters, mean), queries, draws, seed) for mean in WORLDS
        ]
        for margin in MARGINS:
            cells = [
                f"{100 * found[margin][decision] / draws:.1f}"
                for found in by_world
                for decision in ("ship", "hold", "reject")
            ]
            yield f"| {queries} | {margin:g} | " + " | ".join(cells) + " |"


def of_runs(path: Path) -> list[list[float]]:
    """The clusters of every run of the ablation that went before the gate."""
    return [list(some) for run in kept.read(path) for some in run["held_out"]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or read what was measured, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--differences", type=Path, help="file to keep the differences in")
    parser.add_argument("--runs", type=Path, help="runs of benchmarks.ablation to take instead")
    parser.add_argument("--draws", type=int, default=2000, help="of each world and n")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    clusters = of_runs(options.runs) if options.runs else _independent(options)
    values = np.asarray(list(itertools.chain.from_iterable(clusters)))
    print(
        f"{len(values)} queries in {len(clusters)} clusters, mean difference {values.mean():+.4f}, "
        f"standard deviation {values.std():.3f}, exactly 0: {np.mean(values == 0):.0%}"
    )
    for mean in WORLDS:
        weights = np.repeat(world(clusters, mean), [len(some) for some in clusters])
        weights /= weights.sum()
        deviation = math.sqrt(weights @ (values - mean) ** 2)
        print(
            f"world {mean:+.2f}: standard deviation {deviation:.3f}, exactly 0: "
            f"{weights[values == 0].sum():.0%}"
        )
    for line in rows(clusters, options.draws, options.seed):
        print(line, flush=True)


def _independent(options: argparse.Namespace) -> list[list[float]]:
    """The differences of the file, measured if there is none; each its own cluster."""
    path: Path | None = options.differences
    if path is not None and path.exists():
        found = json.loads(path.read_text())
    else:
        found = measured_differences(options.epochs)
        if path is not None:
            path.write_text(json.dumps(found))
    return [[difference] for difference in found]


if __name__ == "__main__":
    main()
