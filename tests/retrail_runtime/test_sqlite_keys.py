"""Rows of many keys."""

import sqlite3
from contextlib import closing

from retrail_runtime.sqlite_keys import ASKED_AT_ONCE, rows_of


def test_each_key_is_found_once_however_many_are_asked_for() -> None:
    count = 2 * ASKED_AT_ONCE + 1
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE things (name TEXT PRIMARY KEY, number INTEGER)")
        db.executemany("INSERT INTO things VALUES (?, ?)", ((str(n), n) for n in range(count)))
        asked = [str(n) for n in range(count)] + ["0", "nobody"]
        found = list(rows_of(db, "SELECT number FROM things WHERE name", asked))
        assert sorted(found) == [(n,) for n in range(count)]
        assert list(rows_of(db, "SELECT number FROM things WHERE name", [])) == []
