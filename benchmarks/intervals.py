"""Intervals of means over seeds and needs, where every seed was measured on the same needs.

Seeds and needs are both samples: other draws of the agents, other questions. So both are resampled,
each by itself (the pigeonhole bootstrap: Owen, Annals of Applied Statistics 2007, "The pigeonhole
bootstrap"), which for such crossed samples errs on the wide side. All statistics of one call are
taken from the same resamples, so contrasts are paired by seed and by need.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Statistic = Callable[[Mapping[str, float]], float]
"""Of the mean of each variant."""

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic and the ends of its two-sided 95% interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 4) -> str:
        """As it stands in a table."""
        return f"{self.value:+.{digits}f} ({self.low:+.{digits}f} to {self.high:+.{digits}f})"

    def percent(self) -> str:
        """A share, as it stands in a table."""
        return f"{self.value:.0%} ({self.low:.0%} to {self.high:.0%})"


def estimates(
    values: Mapping[str, Values], statistics: Mapping[str, Statistic], *, seed: int = 0
) -> dict[str, Estimate]:
    """Each statistic with its interval.

    Args:
        values: by variant, (seeds, needs): one number for each seed and need, the same seeds and
            needs for all.

    Raises:
        ValueError: the variants differ in shape.
    """
    if len({each.shape for each in values.values()}) != 1:
        raise ValueError("every variant needs the same seeds and needs")
    seeds, needs = next(iter(values.values())).shape
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in statistics}
    for _ in range(RESAMPLES):
        rows = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds) / seeds
        columns = np.bincount(rng.integers(needs, size=needs), minlength=needs) / needs
        means = {name: float(rows @ each @ columns) for name, each in values.items()}
        for name, statistic in statistics.items():
            drawn[name].append(statistic(means))
    means = {name: float(each.mean()) for name, each in values.items()}
    found = {}
    for name, statistic in statistics.items():
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        found[name] = Estimate(statistic(means), float(low), float(high))
    return found
