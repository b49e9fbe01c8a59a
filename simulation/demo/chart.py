"""The chart of a run: the retriever's figures turn by turn."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulation.demo import report as reports
from simulation.demo.report import Report, Turn

WIDTH, HEIGHT, DPI = 12.0, 6.75, 160
INK, FAINT, PAPER, GRID = "#1f2933", "#6b7785", "#fbfaf7", "#e4e2dc"
BLUE, GREEN, AMBER, RED, GREY = "#2563a8", "#1f8a5b", "#d9822b", "#b3402f", "#a9b1ba"
FEW_TURNS = 4
"""Up to so many turns every column shows its value."""


def draw(report: Report, path: Path) -> None:
    """Draw the chart as PNG, written whole.

    Raises:
        InputError: the file cannot be written.
    """
    reports.replace(path, render(report))


def render(report: Report) -> bytes:
    """The chart as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": FAINT,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
        grid = figure.add_gridspec(1, 3, left=0.06, right=0.975, top=0.76, bottom=0.13, wspace=0.27)
        _title(figure, report)
        _found(figure.add_subplot(grid[0]), report.turns)
        _agents(figure.add_subplot(grid[1]), report.turns)
        _losses(figure.add_subplot(grid[2]), report.turns)
        _footer(figure, report)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _title(figure: Any, report: Report) -> None:
    first, last = report.turns[0], report.turns[-1]
    change = last.ndcg_at_10 - first.ndcg_at_10
    better = "a better retriever" if change > 0 else "no better retriever"
    turns = len(report.turns) - 1
    figure.text(
        0.06,
        0.925,
        f"{turns} turn{'s' if turns > 1 else ''} of learning from agents: "
        f"{better} ({change:+.3f} nDCG@10)",
        fontsize=17,
        weight="bold",
    )
    figure.text(
        0.06,
        0.873,
        f"{report.corpus.name}: {report.corpus.documents:,} documents. All figures are measured on "
        f"{report.corpus.unseen:,} needs of no trajectory.",
        fontsize=11,
        color=FAINT,
    )


def _footer(figure: Any, report: Report) -> None:
    pairs = sum(turn.pairs for turn in report.turns)
    figure.text(
        0.06,
        0.03,
        f"Scripted agents, no LLM: {report.agents:,} trajectories a turn gave {pairs:,} labelled "
        f"pairs in all.  Kafka: {report.kafka}.  Seed {report.seed}.  "
        f"{report.seconds / 60:.1f} minutes.",
        fontsize=9,
        color=FAINT,
    )


def _found(axes: Any, turns: Sequence[Turn]) -> None:
    """nDCG@10 and recall@10, compared with the untrained retriever."""
    head(axes, "What the retriever finds", "dashed: untrained")
    for values, colour, name, above in (
        ([turn.recall_at_10 for turn in turns], AMBER, "recall@10", True),
        ([turn.ndcg_at_10 for turn in turns], BLUE, "nDCG@10", False),
    ):
        places = range(len(turns))
        axes.axhline(values[0], color=colour, linewidth=1.2, linestyle=(0, (4, 3)), alpha=0.7)
        axes.fill_between(places, values, values[0], color=colour, alpha=0.13, linewidth=0)
        axes.plot(places, values, color=colour, linewidth=2.6, zorder=3, label=name)
        axes.scatter(places, values, s=64, color=colour, edgecolor=PAPER, linewidth=1.5, zorder=4)
        for place in _labelled(len(turns)):
            _label(
                axes,
                f"{values[place]:.3f}",
                (place, values[place]),
                9 if above else -9,
                va="bottom" if above else "top",
                color=colour,
                weight="bold",
                # Keeps the dashed line from crossing the label.
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
                zorder=3.5,
            )
    axes.legend(loc="lower right", frameon=False, labelcolor="linecolor")
    _turns(axes, turns)
    # Room for labels above values near 1.
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])


def _agents(axes: Any, turns: Sequence[Turn]) -> None:
    """Success rate and steps of agents."""
    steps = f"searches and browses of each: {turns[0].mean_steps:.2f} → {turns[-1].mean_steps:.2f}"
    head(axes, "Agents with a correct answer", steps)
    rates = [turn.success_rate for turn in turns]
    colours = [GREY if turn.turn == 0 else GREEN for turn in turns]
    axes.bar(range(len(turns)), rates, width=0.58, color=colours)
    for place in _labelled(len(turns)):
        _label(axes, f"{rates[place]:.1%}", (place, rates[place]), 4, weight="bold")
    _turns(axes, turns)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _losses(axes: Any, turns: Sequence[Turn]) -> None:
    """Training loss of each optimiser step."""
    head(axes, "Training", "loss at each optimiser step")
    start = 1
    for turn, colour in zip(turns[1:], itertools.cycle((BLUE, RED, GREEN, AMBER))):
        steps = range(start, start + len(turn.losses))
        axes.plot(steps, turn.losses, color=colour, linewidth=1.6)
        if turn.losses and len(turns) <= FEW_TURNS + 2:
            middle = start + len(turn.losses) / 2, max(turn.losses)
            _label(axes, f"turn {turn.turn}", middle, 4, color=colour, fontsize=9)
        start += len(turn.losses)
    highest = max((loss for turn in turns for loss in turn.losses), default=1.0)
    axes.set_ylim(0, highest * 1.25)
    axes.set_xlim(0.5, max(2, start) - 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)


def head(axes: Any, title: str, explained: str) -> None:
    """Title and subtitle of a part of a chart."""
    axes.set_title(title, loc="left", fontsize=12.5, weight="bold", color=INK, pad=24)
    _label(axes, explained, (0, 1), 8, xycoords="axes fraction", ha="left", fontsize=9, color=FAINT)
    axes.tick_params(length=0)


def _label(axes: Any, text: str, place: tuple[float, float], above: float, **style: Any) -> None:
    """Text over a place, ``above`` in points."""
    where = {"xytext": (0, above), "textcoords": "offset points", "ha": "center"}
    axes.annotate(text, place, **where | style)


def _labelled(count: int) -> Sequence[int]:
    """Positions of labels: all if there is room, else the first and the last."""
    return range(count) if count <= FEW_TURNS else (0, count - 1)


def _turns(axes: Any, turns: Sequence[Turn]) -> None:
    few = len(turns) <= FEW_TURNS
    names = [f"turn {turn.turn}" if few else str(turn.turn) for turn in turns]
    names[0] = "untrained" if few else "0"
    shown = range(0, len(turns), 1 + len(turns) // 12)
    axes.set_xticks(shown, [names[place] for place in shown])
    if not few:
        axes.set_xlabel("turn (0: untrained)")
    axes.set_xlim(-0.5, len(turns) - 0.5)
    axes.grid(axis="x", visible=False)
