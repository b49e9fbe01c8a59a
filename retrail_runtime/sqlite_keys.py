"""SQLite asked for the rows of many keys."""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

ASKED_AT_ONCE = 500
"""SQLite takes 999 parameters everywhere."""


def rows_of(
    db: sqlite3.Connection, select: str, keys: Iterable[str | bytes]
) -> Iterator[tuple[Any, ...]]:
    """The rows whose key is one of ``keys``; each key is asked for once.

    Args:
        select: a statement up to the column of the key.

    Example::

        rows_of(db, "SELECT doc_id, text FROM documents WHERE doc_id", ["a", "b"])
    """
    remaining = iter(dict.fromkeys(keys))
    while some := list(islice(remaining, ASKED_AT_ONCE)):
        marks = ",".join("?" * len(some))
        yield from db.execute(f"{select} IN ({marks})", some)
