"""What ``retrail up`` shows: plain lines, and on a terminal a table that stays current."""

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.local.stack import Part

COLOURS = {
    "running": "green",
    "external": "cyan",
    "starting": "yellow",
    "restarting": "yellow",
    "stopped": "red",
}


class View:
    """Tells what happens; between :meth:`begin` and :meth:`end` also how things stand."""

    def __init__(self, console: Console) -> None:
        """Writes to ``console``, with a live table if that is a terminal."""
        self._console = console
        self._live: Live | None = None
        self._shown: list[Part] = []

    def say(self, text: str) -> None:
        """One event, as it is (no markup, never cut)."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, parts: Sequence[Part]) -> None:
        """From now on show the state of all parts."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self.show(parts)

    def show(self, parts: Sequence[Part]) -> None:
        """Bring the table up to date; off a terminal a line for every state that changed."""
        before, self._shown = self._shown, list(parts)
        if self._live is None:
            for part in parts:
                if part not in before:
                    self.say(line(part))
        elif before != self._shown:
            self._live.update(table(parts), refresh=True)

    def end(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def table(parts: Sequence[Part]) -> Table:
    """The state of all parts for a terminal."""
    shown = Table("part", "state", "where", "process", "restarts", "log")
    for part in parts:
        shown.add_row(
            part.name,
            f"[{COLOURS[part.state]}]{part.state}[/]",
            part.where,
            str(part.pid or ""),
            str(part.restarts or ""),
            str(part.log_file or ""),
        )
    return shown


def line(part: Part) -> str:
    """The state of one part as plain text."""
    details = [part.where, f"pid {part.pid}" if part.pid else "", str(part.log_file or "")]
    return f"{part.name}: {part.state}  {'  '.join(detail for detail in details if detail)}"
