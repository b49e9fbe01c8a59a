"""What a run prints: a line for every stage and turn; on a terminal also a bar for the stage."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from simulation.demo.report import Report, Turn

REMINDER = "The agents are scripted: no LLM takes part."
LINE_SECONDS = 10.0
"""Between two lines about the progress of a stage, off a terminal."""

BAR_WIDTH = 28


@dataclass(slots=True)
class Stage:
    """The progress of one stage of the loop.

    Attributes:
        of: number of items; 0: unknown.
        note: the latest figure.
    """

    name: str
    explained: str
    state: Literal["running", "done", "failed"] = "running"
    done: int = 0
    of: int = 0
    note: str = ""
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """Its duration."""
        return (self.ended or time.monotonic()) - self.began


class View:
    """Prints stages, their progress and the figures of every turn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._printed_at = 0.0

    @contextmanager
    def showing(self) -> Iterator[None]:
        """While the block runs, the bar is live."""
        with self._bar:
            yield

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, heading: str) -> None:
        """A turn begins; its stages follow."""
        self.say(f"\n{heading}")

    @contextmanager
    def stage(self, name: str, explained: str) -> Iterator[Stage]:
        """A stage runs while the block runs; the block may set its note."""
        stage = Stage(name, explained)
        task = self._bar.add_task(name, total=None, note=explained)
        self.say(f"  {name}: {explained}")
        try:
            yield stage
            stage.state = "done"
        except BaseException:
            stage.state = "failed"
            raise
        finally:
            stage.ended = time.monotonic()
            self._bar.remove_task(task)
            self.say(f"  {line(stage)}")

    def progress(self, stage: Stage, done: int, of: int, note: str = "") -> None:
        """Show how far a stage is: by the bar, or off a terminal by a line now and then."""
        stage.done, stage.of, stage.note = done, of, note or stage.note
        if self._console.is_terminal:
            task = self._bar.task_ids[-1]
            shown = stage.note or stage.explained
            self._bar.update(task, completed=done, total=of or None, note=shown)
        elif (now := time.monotonic()) - max(self._printed_at, stage.began) >= LINE_SECONDS:
            self._printed_at = now
            self.say(f"  {line(stage)}")

    def turn(self, turn: Turn) -> None:
        """Print the figures of a turn."""
        self.say(f"  {figures(turn)}")

    def result(self, report: Report) -> None:
        """Print a table of all turns, and the change from the first to the last."""
        first, last = report.turns[0], report.turns[-1]
        self._console.print()
        self._console.print(table(report.turns, report.corpus.name))
        self.say(
            f"nDCG@10 {first.ndcg_at_10:.3f} → {last.ndcg_at_10:.3f} "
            f"({last.ndcg_at_10 - first.ndcg_at_10:+.3f}), agents' success "
            f"{first.success_rate:.1%} → {last.success_rate:.1%}, on "
            f"{report.corpus.unseen:,} unseen needs. {REMINDER}"
        )
        self.say(f"{report.seconds / 60:.1f} minutes; Kafka: {report.kafka}.")


def line(stage: Stage) -> str:
    """A stage as plain text."""
    share = f" {stage.done:,} of {stage.of:,}" if stage.of and stage.state == "running" else ""
    state = "" if stage.state == "running" else f" {stage.state}"
    note = f", {stage.note}" if stage.note else ""
    return f"{stage.name}:{share}{state}{note} ({stage.seconds:.0f} s)"


def figures(turn: Turn) -> str:
    """A turn as plain text."""
    return (
        f"model {turn.model_version}: nDCG@10 {turn.ndcg_at_10:.4f}, recall@10 "
        f"{turn.recall_at_10:.4f}, agents' success {turn.success_rate:.1%}, steps "
        f"{turn.mean_steps:.2f}"
    )


def table(turns: Iterable[Turn], title: str) -> Table:
    """The figures of all turns; ``kept`` marks a turn whose model did not ship."""
    shown = Table(
        title=title, title_justify="left", title_style="dim", box=SIMPLE_HEAD, pad_edge=False
    )
    for name in ("turn", "model", "pairs", "nDCG@10", "recall@10", "success", "steps"):
        shown.add_column(name, justify="right", no_wrap=True)
    for turn in turns:
        kept = turn.gate is not None and turn.gate.decision != "ship"
        shown.add_row(
            str(turn.turn),
            f"v{turn.model_version}{' kept' if kept else ''}",
            f"{turn.pairs:,}" if turn.turn else "",
            f"{turn.ndcg_at_10:.3f}",
            f"{turn.recall_at_10:.3f}",
            f"{turn.success_rate:.1%}",
            f"{turn.mean_steps:.2f}",
        )
    return shown
