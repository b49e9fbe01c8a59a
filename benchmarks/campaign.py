"""What long benchmarks share: their options, and pictures of one panel a corpus."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from simulation import stdlib_corpus
from simulation.corpus import Corpus, load_beir
from simulation.demo.chart import GRID, INK, PAPER

T = TypeVar("T")


def parser(name: str, described: str | None) -> argparse.ArgumentParser:
    """Options of a benchmark whose finished runs are kept in a file."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=described,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    made.add_argument(
        "--runs", type=Path, required=True, help="file of finished runs, one JSON line each"
    )
    made.add_argument("--corpus", type=Path, help="a BEIR folder; by default the demo's corpus")
    made.add_argument("--seeds", type=int, default=5, help="how many")
    made.add_argument("--first-seed", type=int, default=0)
    made.add_argument("--table-only", action="store_true", help="run nothing")
    made.add_argument("--chart", type=Path, help="write the table as a PNG, too")
    return made


def corpus_of(options: argparse.Namespace) -> Corpus:
    """The corpus that the options name.

    Raises:
        InputError, RetrailError: it cannot be read.
    """
    return load_beir(options.corpus) if options.corpus else stdlib_corpus.load()


def seeds_of(options: argparse.Namespace) -> range:
    """The seeds that the options name."""
    return range(options.first_seed, options.first_seed + options.seeds)


def panels(found: Sequence[T], draw: Callable[[Any, T], None], path: Path) -> None:
    """Write a PNG with one panel for each of ``found``, side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": GRID}):
        figure = Figure(figsize=(5.5 * len(found), 4.6), dpi=160, facecolor=PAPER)
        figure.subplots_adjust(top=0.87, bottom=0.12, left=0.16 / len(found), right=0.98)
        for number, one in enumerate(found, start=1):
            axes = figure.add_subplot(1, len(found), number)
            axes.set_facecolor(PAPER)
            axes.grid(axis="y", color=GRID)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.set_ylabel("gain in nDCG@10")
            draw(axes, one)
        figure.savefig(path, metadata={"Software": None})
