"""The ablation as a picture: the gain of each variant with its interval, seeds as dots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ablation.runs import Run
from benchmarks.ablation.tables import Comparison, comparisons
from simulation.chart import AMBER, BLUE, FAINT, GREEN, GREY, GRID, INK, PAPER

COLOURS = {
    "naive": GREY,
    "naive-whole": GREY,
    "filter": AMBER,
    "reweight": BLUE,
    "oracle": GREEN,
}


def draw(runs: Sequence[Run], path: Path) -> None:
    """Write the chart as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    found = comparisons(runs)
    with mpl.rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": GRID}):
        figure = Figure(figsize=(5.5 * len(found), 4.6), dpi=160, facecolor=PAPER)
        figure.subplots_adjust(top=0.78, bottom=0.12, left=0.14 / len(found), right=0.98)
        for number, comparison in enumerate(found, start=1):
            _one(figure.add_subplot(1, len(found), number), comparison)
        figure.savefig(path, metadata={"Software": None})


def _one(axes: Any, found: Comparison) -> None:
    axes.set_facecolor(PAPER)
    axes.set_title(found.corpus, loc="left", fontsize=12, weight="bold", pad=24)
    axes.annotate(
        f"gain in nDCG@10 over {found.parent:.3f}, 95% intervals; dots: {found.seeds} seeds",
        (0, 1),
        xytext=(0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=FAINT,
    )
    for place, (name, gain) in enumerate(found.gains.items()):
        low, high = gain.value - gain.low, gain.high - gain.value
        axes.bar(place, gain.value, width=0.6, color=COLOURS[name], alpha=0.75)
        axes.errorbar(place, gain.value, [[low], [high]], color=INK, capsize=4, linewidth=1.3)
        parents = found.runs["parent"]
        seeds = [
            sum(run.ndcg) / len(run.ndcg) - sum(parent.ndcg) / len(parent.ndcg)
            for run, parent in zip(found.runs[name], parents, strict=True)
        ]
        axes.scatter([place + 0.18] * len(seeds), seeds, s=14, color=INK, alpha=0.55, zorder=3)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(found.gains)), list(found.gains))
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
