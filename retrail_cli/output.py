"""What commands print: numbers in sentences, tables, and a progress bar on standard error."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import typer

COLOURS = {"ok": "green", "optional": "yellow", "look": "yellow", "missing": "red"}


def counted(number: int, one: str, many: str) -> str:
    """A number with the singular or plural of its noun.

    >>> counted(1, "document is", "documents are"), counted(1200, "document is", "documents are")
    ('1 document is', '1,200 documents are')
    """
    return f"{number:,} {one if number == 1 else many}"


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """Print a table on standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_state(state: str, text: str) -> None:
    """Print what a check found, behind its state in colour."""
    typer.secho(f"{state:9}", fg=COLOURS[state], nl=False)
    typer.echo(text)


class Advance(Protocol):
    """Adds to a progress bar; may also change its label or total."""

    def __call__(
        self, count: int = 1, what: str | None = None, total: int | None = None, /
    ) -> None: ...


@contextmanager
def bar(what: str, total: int | None = None) -> Iterator[Advance]:
    """A progress bar on standard error, if that is a terminal; yields how to add to it.

    Example:
        >>> with bar("reading", total=3) as advance:
        ...     advance(1)
    """
    if not sys.stderr.isatty():
        yield lambda count=1, what=None, total=None, /: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count=1, what=None, total=None, /: progress.update(
            task, advance=count, description=what, total=total
        )
