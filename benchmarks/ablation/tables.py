"""Tables of finished runs, with paired intervals."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ablation.runs import Run
from benchmarks.ablation.turns import FULL, LEVERS, levers_of
from benchmarks.intervals import Estimate, Statistic, Values, estimates

FIRST = ("naive", "naive-whole", "filter", "reweight", "paper", *LEVERS)

REFERENCES = ("oracle", FULL)

CONTRASTS = (
    ("filter", "naive"),
    ("reweight", "filter"),
    ("reweight", "oracle"),
    ("paper", "reweight"),
)
"""Each variant of levers is compared with ``reweight``, too."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one corpus, over the seeds that every variant was run with.

    Attributes:
        gains: over the parent, by variant.
        shares: of the gain of the oracle and of full supervision, by reference and variant;
            empty for a reference without runs.
        contrasts: the first variant's nDCG@10 minus the second's.
    """

    corpus: str
    seeds: int
    needs: int
    parent: float
    runs: Mapping[str, Sequence[Run]]
    gains: Mapping[str, Estimate]
    shares: Mapping[str, Mapping[str, Estimate]]
    contrasts: Mapping[tuple[str, str], Estimate]


def compare(runs: Sequence[Run], corpus: str) -> Comparison | None:
    """Put the runs of a corpus side by side; ``None`` while no seed has all variants."""
    by_variant: dict[str, dict[int, Run]] = {}
    for run in runs:
        if run.corpus == corpus:
            by_variant.setdefault(run.variant, {})[run.seed] = run
    seeds = sorted(set.intersection(*map(set, by_variant.values())))
    if not seeds or "parent" not in by_variant:
        return None
    chosen = {name: [some[seed] for seed in seeds] for name, some in by_variant.items()}
    values: dict[str, Values] = {
        name: np.asarray([run.ndcg for run in some]) for name, some in chosen.items()
    }
    variants = _ordered(values)
    statistics: dict[str, Statistic] = {}
    for name in variants:
        statistics[f"gain {name}"] = _gain(name)
        for reference in set(REFERENCES) & values.keys():
            statistics[f"{name} of {reference}"] = _share(name, reference)
    pulled = [(name, "reweight") for name in variants if levers_of(name)]
    contrasts = [pair for pair in (*CONTRASTS, *pulled) if set(pair) <= set(variants)]
    for one, other in contrasts:
        statistics[f"{one} - {other}"] = _difference(one, other)
    found = estimates(values, statistics)
    return Comparison(
        corpus=corpus,
        seeds=len(seeds),
        needs=values["parent"].shape[1],
        parent=float(values["parent"].mean()),
        runs=chosen,
        gains={name: found[f"gain {name}"] for name in variants},
        shares={
            reference: {name: found[f"{name} of {reference}"] for name in variants}
            if reference in variants
            else {}
            for reference in REFERENCES
        },
        contrasts={(one, other): found[f"{one} - {other}"] for one, other in contrasts},
    )


def _ordered(variants: Collection[str]) -> list[str]:
    """The known ones, then combinations of levers, then the references."""
    known = [*FIRST, *sorted(v for v in variants if "+" in v), *REFERENCES]
    return [name for name in known if name in variants]


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Of every corpus, in order of appearance."""
    names = dict.fromkeys(run.corpus for run in runs)
    return [found for name in names if (found := compare(runs, name)) is not None]


def markdown(runs: Sequence[Run]) -> Iterator[str]:
    """The tables, as they stand in the docs."""
    for found in comparisons(runs):
        yield ""
        yield (
            f"{found.corpus}: {found.seeds} seeds, {found.needs:,} needs never seen, untrained "
            f"nDCG@10 {found.parent:.4f}{_shown(found.runs['parent'])}"
        )
        yield ""
        yield (
            "| variant | pairs | steps | true positives | gain in nDCG@10 (95%) "
            "| of the oracle's gain (95%) | of full supervision's (95%) |"
        )
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for name, gain in found.gains.items():
            some = found.runs[name]
            oracle, full = (
                _percent(share) if (share := found.shares[reference].get(name)) else ""
                for reference in ("oracle", FULL)
            )
            yield (
                f"| {name} | {_mean([r.pairs for r in some]):.0f} "
                f"| {_mean([r.steps for r in some]):.0f} | {_mean([r.true for r in some]):.1%} "
                f"| {gain.text()} | {oracle} | {full} |"
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


def _percent(share: Estimate) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def _shown(runs: Sequence[Run]) -> str:
    shares = [run.found for run in runs if run.found is not None]
    return f"; agents were shown what serves {_mean(shares):.1%} of their needs" if shares else ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
