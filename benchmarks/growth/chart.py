"""Time and memory by the number of documents, and of pairs, on logarithmic scales."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulation.demo.chart import AMBER, BLUE, DPI, INK, PAPER

PANELS = {
    "documents": {
        "release to alias, s": BLUE,
        "encoding, s": INK,
        "index worker, peak MB": AMBER,
    },
    "pairs": {"due to first step, s": BLUE, "peak MB": AMBER},
}


def draw(figures: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    """Draw the chart as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(10, 4.2), dpi=DPI, facecolor=PAPER)
    for axes, (what, lines) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        sizes = sorted(map(int, figures[what]))
        for label, colour in lines.items():
            values = [figures[what][str(size)][label] for size in sizes]
            axes.loglog(sizes, values, color=colour, marker="o", label=label)
        axes.set_xlabel(what)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
