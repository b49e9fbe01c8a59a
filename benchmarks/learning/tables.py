"""Tables of finished seeds: the gain beside the oracle's, and each turn beside the last one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.intervals import Estimate, Statistic, Values, estimates
from benchmarks.learning.runs import Run, alike

GOAL, LEAST = 0.9, 0.8
"""Of the oracle's gain: the mean, and the lower end of its interval."""

OF_FULL = 0.85
"""Of full supervision's gain."""

SEEDS = 5
"""Fewer show nothing, whatever their mean."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Of one corpus, over all seeds that had as many agents and turns.

    Attributes:
        agents: of each turn.
        gains: over turn 0, by ``system`` and ``oracle``, of each turn from 1 on.
        steps: each turn against the one before, of the system.
        share: of the oracle's gain after the last turn.
        of_full: of full supervision's gain after the last turn, if every seed has that.
    """

    corpus: str
    agents: int
    seeds: int
    needs: int
    untrained: float
    gains: Mapping[str, Sequence[Estimate]]
    steps: Sequence[Estimate]
    share: Estimate
    of_full: Estimate | None

    @property
    def taken(self) -> str:
        """The seeds, in words."""
        return "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"

    @property
    def verdict(self) -> str:
        """Whether the goals are met: the share, and no turn that is worse beyond chance."""
        if self.seeds < SEEDS:
            return f"open, {SEEDS - self.seeds} of {SEEDS} seeds are to be taken"
        if self.of_full is None:
            return "open, full supervision is to be trained"
        enough = self.share.value >= GOAL and self.share.low >= LEAST
        enough = enough and self.of_full.value >= OF_FULL
        return "reached" if enough and all(s.high >= 0 for s in self.steps) else "not reached"


def learned(runs: Sequence[Run]) -> list[Learned]:
    """Of every corpus, number of agents and of turns, in order of appearance."""
    groups: dict[tuple[str, int, int], list[Run]] = {}
    for run in runs:
        groups.setdefault(alike(run), []).append(run)
    return [_of(some) for some in groups.values()]


def _of(runs: Sequence[Run]) -> Learned:
    turns = range(1, len(runs[0].turns))
    last = turns[-1]
    values: dict[str, Values] = {}
    for turn in (0, *turns):
        values[f"system {turn}"] = np.asarray([run.turns[turn].system for run in runs])
        values[f"oracle {turn}"] = np.asarray([run.turns[turn].oracle for run in runs])
    statistics: dict[str, Statistic] = {"share": _share(f"system {last}", f"oracle {last}")}
    if all(run.full for run in runs):
        values["full"] = np.asarray([run.full for run in runs])
        statistics["of full"] = _share(f"system {last}", "full")
    for turn in turns:
        statistics[f"step {turn}"] = _difference(f"system {turn}", f"system {turn - 1}")
        for who in ("system", "oracle"):
            statistics[f"{who} {turn}"] = _difference(f"{who} {turn}", f"{who} 0")
    found = estimates(values, statistics)
    return Learned(
        corpus=runs[0].corpus,
        agents=runs[0].agents,
        seeds=len(runs),
        needs=len(runs[0].turns[0].system),
        untrained=float(values["system 0"].mean()),
        gains={w: [found[f"{w} {turn}"] for turn in turns] for w in ("system", "oracle")},
        steps=[found[f"step {turn}"] for turn in turns],
        share=found["share"],
        of_full=found.get("of full"),
    )


def markdown(runs: Sequence[Run]) -> Iterator[str]:
    """The tables, as they stand in the docs."""
    for found in learned(runs):
        yield ""
        yield (
            f"{found.corpus}: {found.taken}, {found.agents:,} agents a turn, {found.needs:,} needs "
            f"never seen, untrained nDCG@10 {found.untrained:.4f}"
        )
        yield ""
        yield "| turn | gain (95%) | the oracle's gain (95%) | against the turn before (95%) |"
        yield "|---:|---:|---:|---:|"
        for turn, step in enumerate(found.steps, start=1):
            system, oracle = (found.gains[who][turn - 1] for who in ("system", "oracle"))
            yield f"| {turn} | {system.text()} | {oracle.text()} | {step.text()} |"
        yield ""
        shares = [
            f"Of the oracle's gain: {found.share.percent()}; goal {GOAL:.0%}, its lower end "
            f"{LEAST:.0%}."
        ]
        if found.of_full is not None:
            shares.append(f"Of full supervision's: {found.of_full.percent()}; goal {OF_FULL:.0%}.")
        shares.append(f"No turn may be wholly below the one before. All goals: {found.verdict}.")
        yield " ".join(shares)


def _difference(one: str, other: str) -> Statistic:
    return lambda means: means[one] - means[other]


def _share(one: str, other: str) -> Statistic:
    return lambda means: (means[one] - means["system 0"]) / (means[other] - means["system 0"])
