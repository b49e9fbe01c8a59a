"""Documents in files: JSON lines, or a folder in BEIR layout."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from schemas.documents import Document
from schemas.errors import InputError
from schemas.events import describe


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds no document: where (file and line), and what is wrong with it."""

    place: str
    complaint: str


def file_of(path: Path) -> Path:
    """The JSON lines that a path names: itself, or ``corpus.jsonl`` of a folder.

    Raises:
        InputError: it does not exist.
    """
    file = path / "corpus.jsonl" if path.is_dir() else path
    if not file.is_file():
        missing = "has no corpus.jsonl, so it is no BEIR folder" if path.is_dir() else "is no file"
        raise InputError(f"{path} {missing}.")
    return file


def documents_of(file: Path) -> Iterator[tuple[str, Document | BadLine]]:
    """Place (``file:line``) and document of each line that is not blank.

    A line is a JSON object with ``doc_id`` or ``_id``, ``text`` and, if it likes, ``title``; other
    fields are left out. A document without text, but with a title, has the title as its text.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    place = f"{file}:{number}"
                    yield place, _document(line, place)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error


def _document(line: bytes, place: str) -> Document | BadLine:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadLine(place, f"not JSON ({error})")
    if not isinstance(row, dict):
        return BadLine(place, f"a JSON object is expected, not {type(row).__name__}")
    try:
        return Document(**_fields(row))
    except ValidationError as error:
        return BadLine(place, describe(error.errors(include_url=False)))


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    doc_id = row.get("doc_id", row.get("_id"))
    if isinstance(doc_id, int) and not isinstance(doc_id, bool):
        doc_id = str(doc_id)
    title, text = row.get("title") or "", row.get("text")
    if not text and title:
        title, text = "", title
    found = {"doc_id": doc_id, "title": title, "text": text}
    return {name: value for name, value in found.items() if value is not None}
