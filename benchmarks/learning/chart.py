"""The turns as a picture: the system beside its oracle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.runs import Run
from benchmarks.learning.tables import Learned, learned
from simulation.chart import BLUE, FAINT, GREEN, GRID, INK, PAPER


def draw(runs: Sequence[Run], path: Path) -> None:
    """Write the chart as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    found = learned(runs)
    with mpl.rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": GRID}):
        figure = Figure(figsize=(5.5 * len(found), 4.6), dpi=160, facecolor=PAPER)
        figure.subplots_adjust(top=0.78, bottom=0.14, left=0.14 / len(found), right=0.98)
        for number, corpus in enumerate(found, start=1):
            _one(figure.add_subplot(1, len(found), number), corpus)
        figure.savefig(path, metadata={"Software": None})


def _one(axes: Any, found: Learned) -> None:
    axes.set_facecolor(PAPER)
    axes.set_title(found.corpus, loc="left", fontsize=12, weight="bold", pad=24)
    axes.annotate(
        f"gain in nDCG@10 over {found.untrained:.3f}, mean of {found.seeds} seeds, 95% intervals; "
        f"{found.share.value:.0%} of the oracle's",
        (0, 1),
        xytext=(0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=FAINT,
    )
    for who, colour, name in (("oracle", GREEN, "true labels"), ("system", BLUE, "retrail")):
        gains = found.gains[who]
        places = range(len(gains) + 1)
        values = [0.0, *(gain.value for gain in gains)]
        axes.plot(places, values, color=colour, linewidth=2.4, marker="o", label=name)
        low, high = [0.0, *(g.low for g in gains)], [0.0, *(g.high for g in gains)]
        axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(found.steps) + 1))
    axes.set_xlabel("turn (0: untrained)")
    axes.legend(frameon=False, loc="lower right", labelcolor="linecolor")
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
