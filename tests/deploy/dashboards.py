"""The generator of the dashboards, and pictures of what a Prometheus answers to their queries."""

import importlib.util
import itertools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tests.servers.prometheus import Prometheus

POINTS = 240
COLUMNS = 2
COLORS = ("#3b76af", "#d98227", "#4a9a4f", "#b8413c", "#7b62a3", "#7d5a50", "#c87bb0", "#7f7f7f")
UNITS = {
    "short": "",
    "s": "seconds",
    "percentunit": "",
    "eps": "events/s",
    "ops": "per second",
    "reqps": "requests/s",
}
"""Labels of axes by Grafana's units."""

Series = tuple[str, list[float], list[float]]
"""Legend, minutes since the start, values."""


def generator() -> ModuleType:
    """``deploy/grafana/generate.py``, which is no module of a package."""
    path = Path(__file__).parents[2] / "deploy" / "grafana" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_dashboards", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()


def answers(server: Prometheus, query: str, start: float, end: float) -> list[dict[str, Any]]:
    """The series of a panel's query that have a number at some time."""
    expression = query.replace("$__rate_interval", "30s")
    step = (end - start) / POINTS
    found = server.query(expression, start=start, end=end, step=step)
    return [one for one in found if any(value != "NaN" for _, value in one["values"])]


def draw(server: Prometheus, start: float, end: float, folder: Path) -> list[Path]:
    """A picture of every dashboard from ``start`` to ``end`` (Unix times)."""
    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    marks = {
        annotation["color"]: [
            (float(time) - start) / 60
            for one in answers(server, annotation["query"], start, end)
            for time, _ in one["values"]
        ]
        for annotation in GENERATOR.DESCRIPTION["annotation"]
    }
    pictures = []
    for board in GENERATOR.DESCRIPTION["dashboard"]:
        panels = board["panel"]
        rows = math.ceil(len(panels) / COLUMNS)
        figure = Figure(figsize=(11, 2.1 * rows + 0.4), layout="constrained")
        figure.suptitle(board["title"], fontsize=11)
        for number, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, COLUMNS, number)
            axes.set_xlim(0, (end - start) / 60)
            series = [
                _series(legend, one, start)
                for legend, query in panel["queries"]
                for one in answers(server, query, start, end)
            ]
            _panel(axes, panel, series, marks)
        path = folder / f"{board['uid']}.png"
        figure.savefig(path, dpi=72, pil_kwargs={"optimize": True})
        pictures.append(path)
    return pictures


def _series(legend: str, answer: Mapping[str, Any], start: float) -> Series:
    labels = answer["metric"]
    name = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)
    values = [(float(time), float(value)) for time, value in answer["values"]]
    return name, [(time - start) / 60 for time, _ in values], [value for _, value in values]


def _panel(
    axes: Axes, panel: Mapping[str, Any], series: Sequence[Series], marks: Mapping[str, list[float]]
) -> None:
    unit = panel.get("unit", "short")
    axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
    axes.set_ylabel(UNITS[unit])
    axes.tick_params(length=2)
    for color, minutes in marks.items():
        for minute in minutes:
            axes.axvline(minute, color=color, linewidth=0.6, alpha=0.4)
    # Series that are 0 all the time share a line of the legend.
    zero = [name for name, _, values in series if not any(values)]
    shown = [one for one in series if any(one[2])]
    for color, (name, minutes, values) in zip(itertools.cycle(COLORS), shown, strict=False):
        axes.plot(minutes, values, label=name, linewidth=1.2, color=color)
    if zero:
        more = f" and {len(zero) - 1} more" if len(zero) > 1 else ""
        axes.plot([], [], color="#bbbbbb", label=f"{zero[0]}{more}: 0")
        axes.axhline(0, color="#bbbbbb", linewidth=1.2)
    axes.set_ylim(bottom=0)
    if unit == "percentunit":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.legend(fontsize=6.5, loc="upper left", frameon=False, ncols=2)
