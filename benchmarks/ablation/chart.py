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
    explained = f"over {found.parent:.3f}, 95% intervals; dots: {found.seeds} seeds"
    head(axes, found.corpus, explained)
    parents = found.runs["parent"]
    for place, (name, gain) in enumerate(found.gains.items()):
        low, high = gain.value - gain.low, gain.high - gain.value
        axes.bar(place, gain.value, width=0.6, color=COLOURS.get(name, BLUE), alpha=0.75)
        axes.errorbar(place, gain.value, [[low], [high]], color=INK, capsize=4, linewidth=1.3)
        seeds = [
            sum(run.ndcg) / len(run.ndcg) - sum(parent.ndcg) / len(parent.ndcg)
            for run, parent in zip(found.runs[name], parents, strict=True)
        ]
        axes.scatter([place + 0.18] * len(seeds), seeds, s=14, color=INK, alpha=0.55, zorder=3)
    axes.set_xticks(range(len(found.gains)), list(found.gains))
