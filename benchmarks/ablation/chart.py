"""The ablation as a picture: the gain of each variant with its interval, seeds as dots."""

from typing import Any

from benchmarks.ablation.tables import Comparison
from simulation.demo.chart import AMBER, BLUE, GREEN, GREY, INK, head

COLOURS = {
    "naive": GREY,
    "naive-whole": GREY,
    "filter": AMBER,
    "reweight": BLUE,
    "paper": BLUE,
    "oracle": GREEN,
    "full": GREEN,
}


def panel(axes: Any, found: Comparison) -> None:
    """One corpus."""
    head(axes, found.corpus, f"over {found.parent:.3f}, 95% intervals; dots: seeds")
    for place, (name, row) in enumerate(found.rows.items()):
        gain = row.gain
        low, high = gain.value - gain.low, gain.high - gain.value
        axes.bar(place, gain.value, width=0.6, color=COLOURS.get(name, BLUE), alpha=0.75)
        axes.errorbar(place, gain.value, [[low], [high]], color=INK, capsize=4, linewidth=1.3)
        seeds = [
            sum(run.ndcg) / len(run.ndcg) - sum(parent.ndcg) / len(parent.ndcg)
            for run, parent in zip(row.runs, row.parents, strict=True)
        ]
        axes.scatter([place + 0.18] * len(seeds), seeds, s=14, color=INK, alpha=0.55, zorder=3)
    axes.set_xticks(range(len(found.rows)), list(found.rows))
