"""Tables of finished runs, with paired intervals."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ablation.runs import Run
from benchmarks.ablation.turns import FULL, LEVERS, ORACLE, VARIANTS
from benchmarks.intervals import Estimate, Statistic, estimates

FIRST = ("naive", "naive-whole", "filter", "reweight", "paper", *LEVERS)

REFERENCES = (ORACLE, FULL)

CONTRASTS = (
    ("filter", "naive"),
    ("reweight", "filter"),
    ("reweight", ORACLE),
    ("paper", "reweight"),
)
"""Each variant of levers is compared with ``reweight``, too."""


@dataclass(frozen=True, slots=True)
class Row:
    """A variant, over the seeds that it was run with.

    Attributes:
        runs, parents: of it and of the parent, by seed.
        gain: over the parent.
        shares: of the gain of the oracle with as many examples (else with as many as ``filter``)
            and of full supervision, over the seeds that both have.
    """

    runs: Sequence[Run]
    parents: Sequence[Run]
    gain: Estimate
    shares: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one corpus and turn.

    Attributes:
        contrasts: the first variant's nDCG@10 minus the second's, over the seeds that both have.
    """

    corpus: str
    turn: int
    parents: Sequence[Run]
    rows: Mapping[str, Row]
    contrasts: Mapping[tuple[str, str], Estimate]

    @property
    def parent(self) -> float:
        """Mean nDCG@10 of the parent."""
        return _mean([_mean(run.ndcg) for run in self.parents])


def compare(runs: Sequence[Run], corpus: str, turn: int = 1) -> Comparison | None:
    """Put the runs of a turn side by side; ``None`` without a seed that the parent has."""
    by_variant: dict[str, dict[int, Run]] = {}
    for run in runs:
        if (run.corpus, run.turn) == (corpus, turn):
            by_variant.setdefault(run.variant, {})[run.seed] = run
    parents = by_variant.get("parent", {})
    having = {n: some for n, some in by_variant.items() if some.keys() & parents.keys()}
    if not having:
        return None

    def estimate(statistic: Statistic, *names: str) -> Estimate | None:
        seeds = sorted(set.intersection(*(set(having.get(name, {})) for name in names)))
        if not seeds:
            return None
        values = {n: np.asarray([having[n][seed].ndcg for seed in seeds]) for n in names}
        return estimates(values, {"": statistic})[""]

    rows = {}
    for name in _ordered(having):
        gain = estimate(_gain(name), name, "parent")
        assert gain is not None, "the variant has a seed that the parent has"
        equal = f"{ORACLE}+{name}" if f"{ORACLE}+{name}" in having else ORACLE
        shares = {
            reference: share
            for reference, gained in ((ORACLE, equal), (FULL, FULL))
            if (share := estimate(_share(name, gained), name, gained, "parent"))
        }
        seeds = sorted(having[name].keys() & parents.keys())
        of_seeds = ([having[name][seed] for seed in seeds], [parents[seed] for seed in seeds])
        rows[name] = Row(*of_seeds, gain, shares)
    usual = {*VARIANTS, FULL}
    levers = [n for n in rows if n not in usual and not n.startswith(ORACLE)]
    contrasts = {
        (one, other): found
        for one, other in (*CONTRASTS, *((name, "reweight") for name in levers))
        if (found := estimate(_difference(one, other), one, other))
    }
    return Comparison(corpus, turn, [parents[seed] for seed in sorted(parents)], rows, contrasts)


def _ordered(variants: Collection[str]) -> list[str]:
    """The known ones, then the others, then the references."""
    last = [*(name for name in sorted(variants) if name.startswith(f"{ORACLE}+")), *REFERENCES]
    others = set(variants) - {"parent", *FIRST, *last}
    return [name for name in (*FIRST, *sorted(others), *last) if name in variants]


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Of every corpus and turn, in order of appearance."""
    names = dict.fromkeys((run.corpus, run.turn) for run in runs)
    return [found for name in names if (found := compare(runs, *name)) is not None]


def markdown(runs: Sequence[Run]) -> Iterator[str]:
    """The tables, as they stand in the docs."""
    for found in comparisons(runs):
        yield ""
        parent = "untrained" if found.turn == 1 else "after a first turn"
        yield (
            f"{found.corpus}: {len(found.parents[0].ndcg):,} needs never seen, {parent} nDCG@10 "
            f"{found.parent:.4f}{_shown(found.parents)}"
        )
        yield ""
        yield (
            "| variant | seeds | pairs | steps | true positives | gain in nDCG@10 (95%) "
            "| of the oracle's gain (95%) | of full supervision's (95%) |"
        )
        yield "|---|---:|---:|---:|---:|---:|---:|---:|"
        for name, row in found.rows.items():
            some = row.runs
            oracle, full = (
                row.shares[reference].percent() if reference in row.shares else ""
                for reference in REFERENCES
            )
            yield (
                f"| {name} | {len(some)} | {_mean([r.pairs for r in some]):.0f} "
                f"| {_mean([r.steps for r in some]):.0f} | {_mean([r.true for r in some]):.1%} "
                f"| {row.gain.text()} | {oracle} | {full} |"
            )
        yield ""
        for (one, other), estimate in found.contrasts.items():
            yield f"{one} − {other}: {estimate.text()}"


def _gain(name: str) -> Statistic:
    return lambda means: means[name] - means["parent"]


def _difference(one: str, other: str) -> Statistic:
    return lambda means: means[one] - means[other]


def _share(name: str, reference: str) -> Statistic:
    return lambda means: (means[name] - means["parent"]) / (means[reference] - means["parent"])


def _shown(runs: Sequence[Run]) -> str:
    shares = [run.found for run in runs if run.found is not None]
    return f"; agents were shown what serves {_mean(shares):.1%} of their needs" if shares else ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
