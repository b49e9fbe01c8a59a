"""What a path holds: rows of JSON, a BEIR folder, Parquet, or text and Markdown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrail_cli.documents import document_files as rows
from retrail_cli.documents import document_texts as texts
from retrail_cli.documents.document_files import Fields, Found
from retrail_cli.documents.document_format import Format
from schemas.errors import InputError


@dataclass(frozen=True, slots=True)
class Source:
    """Documents of one path.

    Attributes:
        count: how many there are, about.
        documents: place and document (or complaint) of each.
        whole: a document is a page, which may be long: it is cut into chunks by default.
    """

    name: str
    count: int
    documents: Callable[[], Iterator[Found]]
    whole: bool = False


def source_of(path: Path, format: Format = Format.auto, fields: Fields | None = None) -> Source:
    """How to read a path.

    Raises:
        InputError: it does not exist, or is not of this format.
    """
    if not path.exists():
        raise InputError(f"{path} is no file or folder.")
    found = _format_of(path) if format is Format.auto else format
    if found is Format.text:
        return _texts(path)
    if found is Format.parquet:
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path} holds no .parquet file.")
        return Source(
            str(path),
            sum(map(rows.rows_of, files)),
            lambda: (found for f in files for found in rows.documents_of_parquet(f, fields)),
        )
    file = path / "corpus.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path} has no corpus.jsonl, so it is no BEIR folder.")
    return Source(str(path), rows.lines_of(file), lambda: rows.documents_of(file, fields))


def _format_of(path: Path) -> Format:
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            return Format.parquet
        return Format.text if suffix in texts.MARKDOWN + texts.TEXT else Format.jsonl
    if (path / "corpus.jsonl").is_file():
        return Format.beir
    if next(path.glob("*.parquet"), None) is not None:
        return Format.parquet
    return Format.text


def _texts(path: Path) -> Source:
    files, root = ([path], path.parent) if path.is_file() else (texts.texts_under(path), path)
    if not files:
        endings = ", ".join(texts.MARKDOWN + texts.TEXT)
        raise InputError(
            f"{path} holds neither corpus.jsonl (BEIR), nor .parquet files, nor texts ({endings})."
        )
    return Source(str(path), len(files), lambda: texts.documents_of_texts(files, root), whole=True)
