"""Documents in files: JSON lines, a BEIR folder, Parquet, or text and Markdown."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrail_cli.documents import texts
from retrail_runtime.files import read_json_lines
from schemas import DocumentFormat
from schemas.base import describe
from schemas.documents import Document
from schemas.errors import InputError, InvalidRecordError

BATCH_ROWS = 1000

Found = tuple[str, Document | InvalidRecordError]
"""Place (``file:line``), and the document or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of a row; of several the first that is not null in a row."""

    doc_id: tuple[str, ...] = ("doc_id", "_id", "id")
    title: tuple[str, ...] = ("title",)
    text: tuple[str, ...] = ("text",)

    @classmethod
    def of(cls, doc_id: str | None, title: str | None, text: str | None) -> "Fields":
        """These names, or the default where one is absent."""
        named = {"doc_id": doc_id, "title": title, "text": text}
        return cls(**{field: (name,) for field, name in named.items() if name})


@dataclass(frozen=True, slots=True)
class Source:
    """Documents of one path.

    Attributes:
        count: how many there are, about; for a progress bar.
        documents: place and document (or problem) of each.
        whole: a document is a page, which may be long: it is cut into chunks by default.
    """

    name: str
    count: int
    documents: Callable[[], Iterator[Found]]
    whole: bool = False


def source_of(path: Path, format: DocumentFormat = "auto", fields: Fields | None = None) -> Source:
    """How to read a path.

    Raises:
        InputError: it does not exist, or is not of this format.
    """
    if not path.exists():
        raise InputError(f"{path} is no file or folder.", path=path)
    names = fields or Fields()
    match _format_of(path) if format == "auto" else format:
        case "text":
            return _texts(path)
        case "parquet":
            files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
            if not files:
                raise InputError(f"{path} holds no .parquet file.", path=path)
            return Source(
                str(path),
                sum(map(rows_of, files)),
                lambda: (found for file in files for found in documents_of_parquet(file, names)),
            )
    file = path / "corpus.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path} has no corpus.jsonl, so it is no BEIR folder.", path=path)
    return Source(str(path), lines_of(file), lambda: documents_of_lines(file, names))


def _format_of(path: Path) -> DocumentFormat:
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return "parquet"
        return "text" if texts.is_text(path) else "jsonl"
    if (path / "corpus.jsonl").is_file():
        return "beir"
    return "text" if next(path.glob("*.parquet"), None) is None else "parquet"


def _texts(path: Path) -> Source:
    files, root = ([path], path.parent) if path.is_file() else (texts.texts_under(path), path)
    if not files:
        endings = ", ".join(texts.MARKDOWN + texts.TEXT)
        raise InputError(
            f"{path} holds neither corpus.jsonl (BEIR), nor .parquet files, nor texts ({endings}).",
            path=path,
        )

    def documents() -> Iterator[Found]:
        for file in files:
            # The id is the path below the folder, with forward slashes.
            yield str(file), texts.document_of_text(file, file.relative_to(root).as_posix())

    return Source(str(path), len(files), documents, whole=True)


def lines_of(file: Path) -> int:
    """How many lines a file has.

    Raises:
        InputError: it cannot be read.
    """
    with _reading(file), file.open("rb") as bytes_:
        return sum(block.count(b"\n") for block in iter(lambda: bytes_.read(1 << 20), b""))


def documents_of_lines(file: Path, fields: Fields) -> Iterator[Found]:
    """Place (``file:line``) and document of each line that is not blank: a JSON object.

    Raises:
        InputError: the file cannot be read.
    """
    for place, row in read_json_lines(file):
        yield place, row if isinstance(row, InvalidRecordError) else document(row, fields)


def rows_of(file: Path) -> int:
    """How many rows a Parquet file has.

    Raises:
        InputError: it cannot be read.
    """
    with _reading(file), _parquet(file) as table:
        return int(table.metadata.num_rows)


def documents_of_parquet(file: Path, fields: Fields) -> Iterator[Found]:
    """Place (``file:row``) and document of each row.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    with _reading(file), _parquet(file) as table:
        names = list(table.schema_arrow.names)
        for what, candidates in (("id", fields.doc_id), ("text", fields.text)):
            if not set(candidates) & set(names):
                raise InputError(
                    f"{file} has no column {' or '.join(candidates)}; it has {', '.join(names)}. "
                    f"Use --{what}-field NAME.",
                    path=file,
                )
        columns = [name for name in (*fields.doc_id, *fields.title, *fields.text) if name in names]
        number = 0
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            for number, row in enumerate(batch.to_pylist(), start=number + 1):  # noqa: B020
                yield f"{file}:{number}", document(row, fields)


def document(row: Mapping[str, Any], fields: Fields) -> Document | InvalidRecordError:
    """The document of a row; one without text, but with a title, has the title as its text."""
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
        return InvalidRecordError(describe(error.errors(include_url=False)))


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _parquet(file: Path) -> Any:
    return import_module("pyarrow.parquet").ParquetFile(file)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn what the system or pyarrow raises into an :class:`InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.", path=file) from error
    except ValueError as error:
        if not type(error).__module__.startswith("pyarrow"):
            raise
        raise InputError(f"{file} cannot be read: {error}.", path=file) from error
