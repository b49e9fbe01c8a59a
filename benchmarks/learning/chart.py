"""The turns as a picture: the system beside its oracle."""

from typing import Any

from benchmarks.learning.tables import Learned
from simulation.demo.chart import BLUE, GREEN, head


def panel(axes: Any, found: Learned) -> None:
    """One corpus."""
    head(
        axes,
        found.corpus,
        f"over {found.untrained:.3f}; {found.taken}, {found.agents:,} agents a turn, 95% intervals",
    )
    reached = f"what agents do: {found.share.value:.0%} of that"
    for who, colour, name in (("oracle", GREEN, "true labels"), ("system", BLUE, reached)):
        gains = found.gains[who]
        places = range(len(gains) + 1)
        values = [0.0, *(gain.value for gain in gains)]
        axes.plot(places, values, color=colour, linewidth=2.4, marker="o", label=name)
        low, high = [0.0, *(g.low for g in gains)], [0.0, *(g.high for g in gains)]
        axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.set_xticks(range(len(found.steps) + 1))
    axes.set_xlabel("turn (0: untrained)")
    above_zero = (1, 0.05)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=above_zero, labelcolor="linecolor")
