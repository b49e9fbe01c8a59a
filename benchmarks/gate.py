"""How often the gate errs, by margin and number of queries: ``python -m benchmarks.gate``.

1. A child of the default model is trained on half the needs of the demo's corpus, and both answer
   the other half: real differences in nDCG@10, most of them 0. ``--differences FILE`` keeps them,
   and takes them from there the next time.
2. Worlds in which the child is worse by .02, just as good, or better by .03 are made of them by
   weights (exponential tilting: the world closest to the measured one that has this mean). So the
   differences keep their values, and many stay exactly 0.
3. From each world so many queries are drawn, again and again, and the gate decides on each draw.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.runs import TrainingConfig
from simulation import stdlib_corpus
from trainer import evaluation, finetune
from trainer.encoder import Encoder
from trainer.examples import TrainingExample
from trainer.gate import Decision, Rule, bounds, verdict
from trainer.models import MINILM

MARGINS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)
QUERIES = (50, 100, 200, 500)
WORLDS = (-0.02, 0.0, 0.03)
RESAMPLES = 1000
"""Of one draw; the gate itself takes more, which only smooths its bounds."""

Values = NDArray[np.float64]


def measured_differences(epochs: int) -> list[float]:
    """Child - parent in nDCG@10, of each need that nothing was trained on."""
    corpus = stdlib_corpus.load()
    texts = {document.doc_id: document.embedded_text() for document in corpus.documents}
    parent = Encoder.load(MINILM, max_tokens=128)
    examples = [
        TrainingExample(need.need_id, need.text, doc_id, texts[doc_id], (), 0, 1.0)
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


def decisions(
    values: Values, weights: Values, queries: int, draws: int, seed: int
) -> dict[float, Counter[Decision]]:
    """How often the gate decides what, by margin."""
    rng = np.random.default_rng([seed, queries])
    found: dict[float, Counter[Decision]] = {margin: Counter() for margin in MARGINS}
    for number in range(draws):
        some = rng.choice(values, size=queries, p=weights)
        difference = math.fsum(some) / queries
        interval = bounds(some.tolist(), seed=number, resamples=RESAMPLES)
        for margin in MARGINS:
            found[margin][verdict(difference, interval, queries, Rule(margin, 1))[0]] += 1
    return found


def rows(values: Values, draws: int, seed: int) -> Iterator[str]:
    """The table as Markdown, in per cent."""
    yield (
        "| n | margin | "
        + " | ".join(f"{world:+.2f}: ships | held | rejected" for world in WORLDS)
        + " |"
    )
    yield "|" + "---:|" * (2 + 3 * len(WORLDS))
    for queries in QUERIES:
        by_world = [
            decisions(values, tilted(values, world), queries, draws, seed) for world in WORLDS
        ]
        for margin in MARGINS:
            cells = [
                f"{100 * found[margin][decision] / draws:.1f}"
                for found in by_world
                for decision in ("ship", "hold", "reject")
            ]
            yield f"| {queries} | {margin:g} | " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or read what was measured, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--differences", type=Path, help="file to keep the differences in")
    parser.add_argument("--draws", type=int, default=2000, help="of each world and n")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    kept: Path | None = options.differences
    if kept is not None and kept.exists():
        found = json.loads(kept.read_text())
    else:
        found = measured_differences(options.epochs)
        if kept is not None:
            kept.write_text(json.dumps(found))
    values = np.asarray(found)
    print(
        f"{len(values)} queries, mean difference {values.mean():+.4f}, standard deviation "
        f"{values.std():.3f}, exactly 0: {np.mean(values == 0):.0%}"
    )
    for world in WORLDS:
        weights = tilted(values, world)
        deviation = math.sqrt(weights @ (values - world) ** 2)
        print(
            f"world {world:+.2f}: standard deviation {deviation:.3f}, exactly 0: "
            f"{weights[values == 0].sum():.0%}"
        )
    for line in rows(values, options.draws, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
