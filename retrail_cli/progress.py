"""A progress bar on standard error, if that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Adds to a bar; may also rename it, or say how much there is after all."""

    def __call__(
        self, count: int = 1, what: str | None = None, total: int | None = None, /
    ) -> None: ...


@contextmanager
def bar(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show ``what`` and how far it is; yields a function that adds to it.

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
