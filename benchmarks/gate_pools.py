"""How often the gate's first stage alone errs, by its pool: ``python -m benchmarks.gate_pools``.

A corpus of directions on a sphere, in clusters; a query is its relevant document plus noise. A
child's documents and queries are the parent's, moved at random, and its queries also moved towards
or away from their documents, so that children are better or worse by different amounts. For each
child the gate decides on pools of 1%, 10% and 100% of the corpus, chosen as the trainer chooses
them: relevant documents, the parent's first hits, a sample. The second stage's decision is that on
100%.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluate import evaluation, gate
from trainer.evaluate.evaluation import CUTOFF, QueryMetrics
from trainer.evaluate.gate import Rule

SHARES = (0.01, 0.1, 1.0)
DIMENSION = 48
TOP = 100

Vectors = NDArray[np.float32]
Child = tuple[bool, ...]
"""For each of :data:`SHARES`, whether it ships."""


@dataclass(frozen=True, slots=True)
class World:
    """A corpus and queries as the parent's vectors; query i is about document i."""

    documents: Vectors
    queries: Vectors


def unit(vectors: NDArray[np.float64]) -> Vectors:
    """L2-normalised rows."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def world(documents: int, queries: int, rng: np.random.Generator) -> World:
    """Documents in clusters of about 50, and queries beside the first ones."""
    centres = rng.normal(size=(documents // 50, DIMENSION))
    own = rng.integers(len(centres), size=documents)
    found = unit(centres[own] + 0.8 * rng.normal(size=(documents, DIMENSION)))
    return World(found, unit(found[:queries] + 0.12 * rng.normal(size=(queries, DIMENSION))))


def child(parent: World, rng: np.random.Generator) -> World:
    """The parent, moved at random."""
    count = len(parent.queries)
    noise, gain = rng.uniform(0, 0.05), rng.uniform(-0.1, 0.25)
    documents = unit(parent.documents + noise * rng.normal(size=parent.documents.shape))
    queries = parent.queries + gain * parent.documents[:count]
    return World(documents, unit(queries + noise * rng.normal(size=queries.shape)))


def ranked(found: World, pool: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """The first documents of the pool for each query."""
    scores = found.queries @ found.documents[pool].T
    order: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return pool[order]


def measured(found: World, pool: NDArray[np.int64]) -> dict[str, QueryMetrics]:
    """Metrics of each query over the pool."""
    rankings = [[str(doc) for doc in row] for row in ranked(found, pool, CUTOFF).tolist()]
    values = evaluation.measure([{str(at): 1} for at in range(len(rankings))], rankings)
    return {str(at): value for at, value in enumerate(values)}


def pools(parent: World, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """A pool of each of :data:`SHARES`."""
    every = np.arange(len(parent.documents))
    hits = [[str(doc) for doc in row] for row in ranked(parent, every, TOP).tolist()]
    relevant = [str(at) for at in range(len(parent.queries))]
    sample = [str(at) for at in rng.permutation(every).tolist()]
    chosen = (
        evaluation.choose_pool(relevant, hits, sample, limit=round(share * len(every)))
        for share in SHARES
    )
    return [np.sort(np.array([int(name) for name in some])) for some in chosen]


def decided(documents: int, queries: int, children: int, seed: int) -> Iterator[Child]:
    """The decisions on each child."""
    rng = np.random.default_rng(seed)
    for number in range(children):
        if number % 10 == 0:
            parent = world(documents, queries, rng)
            some = pools(parent, rng)
            before = [measured(parent, pool) for pool in some]
        moved = child(parent, rng)
        ships = []
        for known, pool in zip(before, some, strict=True):
            found = gate.compare(known, measured(moved, pool), seed=number)
            ships.append(gate.decide(found, Rule(0.02)).decision == "ship")
        yield tuple(ships)


def rows(found: Sequence[Child]) -> Iterator[str]:
    """The table as Markdown, in per cent."""
    yield "| pool, % of the corpus | ships, % of children | wrongly ships | wrongly held |"
    yield "|---:|---:|---:|---:|"
    last = len(SHARES) - 1
    count = Counter(one[last] for one in found)
    for at, share in enumerate(SHARES):
        ships = sum(one[at] for one in found)
        wrong = sum(one[at] and not one[last] for one in found)
        missed = sum(one[last] and not one[at] for one in found)
        yield (
            f"| {100 * share:g} | {100 * ships / len(found):.1f} | "
            f"{100 * wrong / max(1, count[False]):.1f} | {100 * missed / max(1, count[True]):.1f} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate_pools",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--children", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    found = list(decided(options.documents, options.queries, options.children, options.seed))
    for line in rows(found):
        print(line)


if __name__ == "__main__":
    main()
