"""The gate over many runs in a row: ``python -m benchmarks.gate_campaign --runs FILE``.

``FILE`` has the runs of ``benchmarks.ablation``, as for ``benchmarks.gate``: the differences of
their held-out queries, in clusters that share a document, are what children are made of.

1. A campaign starts with a release, and tries a child 20 times. Each child's true difference from
   its parent is that of its world; its differences on single queries are drawn from it.
2. The gate decides by :func:`trainer.evaluate.gate.verdict`, and what ships is the next parent.
   On the same clusters a release is what its lineage's differences add up to.
3. Four rules: the same queries for all runs or new ones for each; with the parent alone or with
   the fifth release before the child as well.
4. Shown are the children that ship in a run and in 20, and what the release that is live at the
   end has gained in truth. Its 5% quantile is what one campaign in twenty stays below.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.gate import RESAMPLES, Clusters, Values, of_runs, world
from trainer.data.releases import GENERATIONS
from trainer.evaluate.gate import Rule, bootstrap_interval, verdict

RUNS = 20

WORLDS: Mapping[str, Sequence[float]] = {
    "all worse by .02": (-0.02,),
    "all worse by .005": (-0.005,),
    "all equal": (0.0,),
    "a third each: -.02, 0, +.03": (-0.02, 0.0, 0.03),
    "all better by .03": (0.03,),
}
"""True differences, one of which each child has."""


class Population:
    """Clusters of queries, all equally likely."""

    def __init__(self, clusters: Clusters) -> None:
        self._sizes = np.asarray([len(some) for some in clusters])
        # Padded with zeros; a cluster stands in for a smaller one by its first queries.
        self._values = np.zeros((len(clusters), self._sizes.max()))
        for row, some in enumerate(clusters):
            self._values[row, : len(some)] = some
        self._fitting = {
            size: np.flatnonzero(self._sizes >= size) for size in range(1, self._sizes.max() + 1)
        }

    def sizes(self, queries: int, rng: np.random.Generator) -> list[int]:
        """Sizes of clusters that have so many queries together; the last one may be cut."""
        drawn = rng.choice(self._sizes, size=queries)
        count = int(np.searchsorted(drawn.cumsum(), queries)) + 1
        found: list[int] = drawn[:count].tolist()
        found[-1] -= sum(found) - queries
        return found

    def differences(self, sizes: Sequence[int], rng: np.random.Generator) -> Values:
        """Of one child on the queries of clusters of these sizes."""
        wanted = np.asarray(sizes)
        found = np.zeros((len(sizes), self._values.shape[1]))
        for size in set(sizes):
            places = np.flatnonzero(wanted == size)
            found[places] = self._values[rng.choice(self._fitting[size], size=len(places))]
        return found[np.arange(found.shape[1]) < wanted[:, None]]


def centred(clusters: Clusters, mean: float) -> list[list[float]]:
    """Clusters whose mean over queries is ``mean``, most differences still those measured.

    The weights of :func:`benchmarks.gate.world` are made equal by repeating clusters.
    """
    weights = world(clusters, mean)
    copies = np.maximum(np.rint(weights * 20 * len(clusters)), 0).astype(int)
    return [list(some) for some, count in zip(clusters, copies, strict=True) for _ in range(count)]


def campaign(
    populations: Mapping[float, Population],
    *,
    queries: int,
    rule: Rule,
    same: bool,
    ancestor: bool,
    rng: np.random.Generator,
    runs: int = RUNS,
) -> list[float]:
    """The true differences of the children that ship, in order.

    Args:
        populations: by true difference; each child is of one of them, drawn.
        same: whether all runs ask the same queries.
        ancestor: whether the child is compared with the fifth release before it, too.
    """
    worlds = list(populations)
    any_world = populations[worlds[0]]
    sizes = any_world.sizes(queries, rng)
    shipped: list[tuple[float, Values]] = []
    for number in range(runs):
        mean = worlds[rng.integers(len(worlds))]
        if not same:
            sizes = any_world.sizes(queries, rng)
        members = np.repeat(np.arange(len(sizes)), sizes)
        child = populations[mean].differences(sizes, rng)
        passes = _passes(child, members, rule, number)
        lineage = shipped[-(GENERATIONS - 1) :]
        if passes and ancestor and lineage:
            earlier = [
                one if same else populations[true].differences(sizes, rng) for true, one in lineage
            ]
            tolerant = Rule(rule.margin, 1, may_fall=True)
            passes = _passes(child + np.sum(earlier, axis=0), members, tolerant, number)
        if passes:
            shipped.append((mean, child))
    return [mean for mean, _ in shipped]


def _passes(differences: Values, members: Values, rule: Rule, seed: int) -> bool:
    interval = bootstrap_interval(
        differences.tolist(), members.tolist(), seed=seed, resamples=RESAMPLES
    )
    found, _ = verdict(float(differences.mean()), interval, len(differences), rule)
    return found == "ship"


def rows(clusters: Clusters, queries: int, margin: float, campaigns: int) -> Iterator[str]:
    """The table as Markdown."""
    yield (
        "| children | queries | compared with | ships, % of runs | worse ones shipped in 20 runs "
        "| at least one worse, % | true change after 20 runs: mean | 5% quantile |"
    )
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for name, means in WORLDS.items():
        populations = {mean: Population(centred(clusters, mean)) for mean in means}
        for same, ancestor in itertools.product((True, False), (False, True)):
            found = [
                campaign(
                    populations,
                    queries=queries,
                    rule=Rule(margin, 1),
                    same=same,
                    ancestor=ancestor,
                    rng=np.random.default_rng([number, queries]),
                )
                for number in range(campaigns)
            ]
            worse = [sum(mean < 0 for mean in some) for some in found]
            change = [sum(some) for some in found]
            yield (
                f"| {name} | {'the same' if same else 'new ones'} "
                f"| {'parent and fifth before' if ancestor else 'parent'} "
                f"| {100 * sum(map(len, found)) / RUNS / campaigns:.1f} | {np.mean(worse):.2f} "
                f"| {100 * np.mean(np.asarray(worse) > 0):.0f} | {np.mean(change):+.3f} "
                f"| {np.quantile(change, 0.05):+.3f} |"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate_campaign",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, required=True, help="runs of benchmarks.ablation")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--margin", type=float, default=0.02)
    parser.add_argument("--campaigns", type=int, default=500, help="of each row")
    options = parser.parse_args(arguments)
    clusters = of_runs(options.runs)
    for line in rows(clusters, options.queries, options.margin, options.campaigns):
        print(line, flush=True)


if __name__ == "__main__":
    main()
