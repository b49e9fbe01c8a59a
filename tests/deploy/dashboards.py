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
from PIL import Image

from tests.servers.prometheus import Prometheus

POINTS = 240
COLUMNS = 2
COLORS = ("#3b76af", "#d98227", "#4a9a4f", "#b8413c", "#7b62a3", "#7d5a50", "#c87bb0", "#7f7f7f")
UNITS = {
    "short": "",
    "suffix: tokens": "tokens",
    "s": "seconds",
    "percentunit": "",
    "eps": "events/s",
    "ops": "per second",
    "reqps": "requests/s",
}
"""Labels of axes by Grafana's units."""

Part = tuple[list[float], list[float]]
"""Minutes since the start, and values."""


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
    expression = query.replace("$__rate_interval", "30s").replace("offset 1m", "offset 10s")
    step = (end - start) / POINTS
    found = server.query(expression, start=start, end=end, step=step)
    return [one for one in found if any(value != "NaN" for _, value in one["values"])]


def draw(server: Prometheus, start: float, end: float, folder: Path) -> list[Path]:
    """A picture of every dashboard from ``start`` to ``end`` (Unix times)."""
    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    marks = {
        annotation["color"]: [
            minutes[0]
            for one in answers(server, annotation["query"], start, end)
            for minutes, _ in _parts(one, start, (end - start) / POINTS)
        ]
        for annotation in GENERATOR.DESCRIPTION["annotation"]
    }
    pictures = []
    for board in GENERATOR.DESCRIPTION["dashboard"]:
        panels = board["panel"]
        rows = math.ceil(len(panels) / COLUMNS)
        figure = Figure(figsize=(11, 2.2 * rows + 0.4), layout="constrained")
        figure.suptitle(board["title"], fontsize=11)
        for number, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, COLUMNS, number)
            axes.set_xlim(0, (end - start) / 60)
            if number > len(panels) - COLUMNS:
                axes.set_xlabel("minutes")
            series = [
                (_name(legend, one), _parts(one, start, (end - start) / POINTS))
                for legend, query in panel["queries"]
                for one in answers(server, query, start, end)
            ]
            _panel(axes, panel, series, marks)
        path = folder / f"{board['uid']}.png"
        figure.savefig(path, dpi=72)
        with Image.open(path) as drawn:
            drawn.convert("RGB").quantize(255).save(path, optimize=True)
        pictures.append(path)
    return pictures


def _name(legend: str, answer: Mapping[str, Any]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: answer["metric"].get(found[1], ""), legend)


def _parts(answer: Mapping[str, Any], start: float, step: float) -> list[Part]:
    """Minutes and values of each part of a series without missing samples."""
    parts: list[Part] = []
    last = -math.inf
    for time, value in answer["values"]:
        if float(time) - last > 1.5 * step:
            parts.append(([], []))
        parts[-1][0].append((float(time) - start) / 60)
        parts[-1][1].append(float(value))
        last = float(time)
    return parts


def _panel(
    axes: Axes,
    panel: Mapping[str, Any],
    series: Sequence[tuple[str, list[Part]]],
    marks: Mapping[str, list[float]],
) -> None:
    unit = panel.get("unit", "short")
    axes.set_title(panel["meaning"], loc="left", fontsize=6.5, color="#666666", pad=3)
    axes.text(0, 1.14, panel["title"], transform=axes.transAxes, fontsize=9, fontweight="bold")
    axes.set_ylabel(UNITS[unit])
    axes.tick_params(length=2)
    for color, minutes in marks.items():
        for minute in minutes:
            axes.axvline(minute, color=color, linewidth=1, alpha=0.5, linestyle="--")
    values = {name: [v for part in parts for v in part[1] if v == v] for name, parts in series}
    colors = itertools.cycle(COLORS)
    for name, parts in series:
        if any(values[name]):
            color, label = next(colors), name
            for part in parts:
                axes.plot(*part, label=label, linewidth=1.2, color=color)
                label = "_"
    # Series that are 0 all the time share a line of the legend.
    zero = [name for name, found in values.items() if not any(found)]
    if zero:
        more = f" and {len(zero) - 1} more" if len(zero) > 1 else ""
        axes.axhline(0, color="#aaaaaa", linewidth=1.2, label=f"{zero[0]}{more}: 0")
    highest = max((v for found in values.values() for v in found), default=0)
    axes.set_ylim(0, 1.45 * highest or 1)
    if unit == "percentunit":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    columns = 3 if max(map(len, values), default=0) < 20 else 2
    axes.legend(fontsize=6.5, loc="upper left", frameon=False, ncols=columns)
