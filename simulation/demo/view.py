"""What a run shows: on a terminal a live picture of the loop, elsewhere plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from simulation.demo.report import Report, Turn

REMINDER = "The agents are scripted: no LLM takes part."
LINE_SECONDS = 10.0
"""Between two lines about one stage, off a terminal."""

BAR_WIDTH = 28


@dataclass(slots=True)
class Stage:
    """One stage of the loop, as it stands.

    Attributes:
        of: how much there is to do; 0 if that is unknown.
        note: the figure that is current.
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
        """How long it has taken."""
        return (self.ended or time.monotonic()) - self.began


class View:
    """Shows stages, their progress and the figures of every turn."""

    def __init__(self, console: Console) -> None:
        """Writes to ``console``: a live picture if that is a terminal, else plain lines."""
        self.heading = ""
        self.stages: list[Stage] = []
        self.turns: list[Turn] = []
        self._console = console
        self._live = (
            Live(
                get_renderable=self._picture, console=console, refresh_per_second=8, transient=True
            )
            if console.is_terminal
            else None
        )
        self._marks: dict[str, RenderableType] = {
            "running": Spinner("dots", style="cyan"),
            "done": Text("✓", style="green"),
            "failed": Text("✗", style="red"),
        }
        self._printed_at = 0.0

    @contextmanager
    def showing(self) -> Iterator[None]:
        """While the block runs the picture is live."""
        self.say(f"Retrail demo. {REMINDER}")
        if self._live is None:
            yield
            return
        with self._live:
            yield

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, heading: str) -> None:
        """A turn, or the preparations: its stages follow."""
        self.heading, self.stages = heading, []
        if self._live is None:
            self.say(f"\n{heading}")

    @contextmanager
    def stage(self, name: str, explained: str) -> Iterator[Stage]:
        """While the block runs, this stage is under way; the block may change what it shows."""
        stage = Stage(name, explained)
        self.stages.append(stage)
        if self._live is None:
            self.say(f"  {name}: {explained}")
        try:
            yield stage
            stage.state = "done"
        except BaseException:
            stage.state = "failed"
            raise
        finally:
            stage.ended = time.monotonic()
            if self._live is None:
                self.say(f"  {line(stage)}")

    def progress(self, stage: Stage, done: int, of: int, note: str = "") -> None:
        """How far a stage is; off a terminal a line now and then."""
        stage.done, stage.of, stage.note = done, of, note or stage.note
        now = time.monotonic()
        if self._live is None and now - max(self._printed_at, stage.began) >= LINE_SECONDS:
            self._printed_at = now
            self.say(f"  {line(stage)}")

    def turn(self, turn: Turn) -> None:
        """The figures of a turn are known."""
        self.turns.append(turn)
        if self._live is None:
            self.say(f"  {figures(turn)}")

    def result(self, report: Report) -> None:
        """The end: a table of all turns, and what it comes to."""
        first, last = report.turns[0], report.turns[-1]
        self._console.print()
        self._console.print(table(report.turns, report.corpus.name))
        self.say(
            f"nDCG@10 {first.ndcg_at_10:.3f} → {last.ndcg_at_10:.3f} "
            f"({last.ndcg_at_10 - first.ndcg_at_10:+.3f}), agents' success "
            f"{first.success_rate:.1%} → {last.success_rate:.1%}, on "
            f"{report.corpus.unseen:,} needs that no agent was ever learned from. {REMINDER}"
        )
        self.say(f"{report.seconds / 60:.1f} minutes over {report.kafka}.")

    def _picture(self) -> RenderableType:
        """The whole screen, drawn anew several times a second."""
        stages = Table.grid(padding=(0, 2))
        for width in (1, None, BAR_WIDTH, 6, None):
            stages.add_column(width=width, no_wrap=True)
        for stage in self.stages:
            stages.add_row(
                self._marks[stage.state],
                Text(stage.name, style="bold" if stage.state == "running" else ""),
                _bar(stage),
                Text(f"{stage.seconds:.0f} s", style="dim", justify="right"),
                Text(stage.note or stage.explained, style="dim", overflow="ellipsis", no_wrap=True),
            )
        parts: list[RenderableType] = [
            Text(self.heading, style="bold cyan"),
            Padding(stages, (0, 0, 0, 2)),
        ]
        if self.turns:
            parts += [Text(), table(self.turns, "so far")]
        return Padding(Group(*parts), (1, 0, 0, 0))


def _bar(stage: Stage) -> RenderableType:
    if stage.state != "running":
        return Text()
    return ProgressBar(
        total=stage.of or None, completed=stage.done, width=BAR_WIDTH, pulse=not stage.of
    )


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


def table(turns: list[Turn] | tuple[Turn, ...], title: str) -> Table:
    """All turns; each figure with its change from the turn before."""
    shown = Table(
        title=title, title_justify="left", title_style="dim", box=SIMPLE_HEAD, pad_edge=False
    )
    for name in ("turn", "model", "pairs", "nDCG@10", "recall@10", "success", "steps"):
        shown.add_column(name, justify="right", no_wrap=True)
    before: Turn | None = None
    for turn in turns:
        old = before or turn
        shown.add_row(
            str(turn.turn),
            f"v{turn.model_version}" + ("" if shipped(turn) else " kept"),
            f"{turn.pairs:,}" if turn.turn else "",
            _changed(turn.ndcg_at_10, old.ndcg_at_10, ".3f"),
            _changed(turn.recall_at_10, old.recall_at_10, ".3f"),
            _changed(turn.success_rate, old.success_rate, ".1%"),
            _changed(turn.mean_steps, old.mean_steps, ".2f", more_is_better=False),
        )
        before = turn
    return shown


def shipped(turn: Turn) -> bool:
    """Whether the turn's own model serves; the first one always does."""
    return turn.gate is None or turn.gate.decision == "ship"


def _changed(value: float, before: float, form: str, *, more_is_better: bool = True) -> Text:
    text = Text(format(value, form))
    change = value - before
    if change:
        good = (change > 0) == more_is_better
        text.append(f" {change:+{form}}", style="green" if good else "red")
    return text
