"""Documents in files of rows: JSON lines, and Parquet."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from schemas.documents import Document
from schemas.errors import InputError
from schemas.events import describe

BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class BadLine:
    """What holds no document: where (file and line), and what is wrong with it."""

    place: str
    complaint: str


Found = tuple[str, Document | BadLine]
"""Place and document."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of a row; of several the first that is not null in a row."""

    doc_id: tuple[str, ...] = ("doc_id", "_id", "id")
    title: tuple[str, ...] = ("title",)
    text: tuple[str, ...] = ("text",)


def lines_of(file: Path) -> int:
    """How many lines a file has, about; for a progress bar."""
    with _reading(file), file.open("rb") as bytes_:
        return sum(block.count(b"\n") for block in iter(lambda: bytes_.read(1 << 20), b""))


def documents_of(file: Path, fields: Fields | None = None) -> Iterator[Found]:
    """Place (``file:line``) and document of each line that is not blank.

    A line is a JSON object with an id, a text and, if it likes, a title; other fields are left out.
    A document without text, but with a title, has the title as its text.

    Raises:
        InputError: the file cannot be read.
    """
    with _reading(file), file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                place = f"{file}:{number}"
                yield place, _of_line(line, place, fields or Fields())


def rows_of(file: Path) -> int:
    """How many rows a Parquet file has.

    Raises:
        InputError: it cannot be read.
    """
    with _reading(file), _parquet(file) as table:
        return int(table.metadata.num_rows)


def documents_of_parquet(file: Path, fields: Fields | None = None) -> Iterator[Found]:
    """Place (``file:row``) and document of each row.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    wanted = fields or Fields()
    with _reading(file), _parquet(file) as table:
        names = list(table.schema_arrow.names)
        for what, candidates in (("id", wanted.doc_id), ("text", wanted.text)):
            if not set(candidates) & set(names):
                raise InputError(
                    f"{file} has no column {' or '.join(candidates)}; it has {', '.join(names)}. "
                    f"Say --{what}-field NAME."
                )
        columns = [name for name in (*wanted.doc_id, *wanted.title, *wanted.text) if name in names]
        number = 0
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                place = f"{file}:{number}"
                yield place, document(row, place, wanted)


def document(row: Mapping[str, Any], place: str, fields: Fields) -> Document | BadLine:
    """The document of a row, or what is wrong with it."""
    doc_id = _first(row, fields.doc_id)
    if isinstance(doc_id, int) and not isinstance(doc_id, bool):
        doc_id = str(doc_id)
    title, text = _first(row, fields.title) or "", _first(row, fields.text)
    if not text and title:
        title, text = "", title
    given = {"doc_id": doc_id, "title": title, "text": text}
    try:
        return Document(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        return BadLine(place, describe(error.errors(include_url=False)))


def _of_line(line: bytes, place: str, fields: Fields) -> Document | BadLine:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadLine(place, f"not JSON ({error})")
    if not isinstance(row, dict):
        return BadLine(place, f"a JSON object is expected, not {type(row).__name__}")
    return document(row, place, fields)


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _parquet(file: Path) -> Any:
    return import_module("pyarrow.parquet").ParquetFile(file)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Say of a file that it cannot be read, and why."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        if not type(error).__module__.startswith("pyarrow"):
            raise
        raise InputError(f"{file} cannot be read: {error}.") from error
