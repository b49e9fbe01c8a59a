"""Documents in files: JSON Lines, BEIR folders, Parquet, text and Markdown."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrail_runtime.corpus_files import Fields, Found, document, find, read_documents
from retrail_runtime.files import open_input
from schemas import DocumentFormat
from schemas.base import describe
from schemas.documents import Document
from schemas.errors import InputError, InvalidRecordError

CORPUS = "corpus.jsonl"
BATCH_ROWS = 1000
MARKDOWN = (".md", ".markdown")
TEXT = (".txt", ".text", ".rst")

_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?=\w[\w -]*:|---|\#)(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_NAMED_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"^#[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """Documents of one path.

    Attributes:
        count: how many there are, about; for a progress bar.
        documents: place and document (or problem) of each.
        whole: a document is a page, which may be long: it is cut into chunks by default.
        ignored: files that are not read, because of their names.
    """

    name: str
    count: int
    documents: Callable[[], Iterator[Found[Document]]]
    whole: bool = False
    ignored: int = 0


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
    file = find(path, CORPUS) if path.is_dir() else path
    if file is None:
        raise InputError(f"{path} has no {CORPUS}, so it is not a BEIR folder.", path=path)
    return Source(str(path), lines_of(file), lambda: read_documents(file, names))


def _format_of(path: Path) -> DocumentFormat:
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return "parquet"
        return "text" if is_text(path) else "jsonl"
    if find(path, CORPUS) is not None:
        return "beir"
    return "text" if next(path.glob("*.parquet"), None) is None else "parquet"


def _texts(path: Path) -> Source:
    files, root = ([path], path.parent) if path.is_file() else (texts_under(path), path)
    if not files:
        endings = ", ".join(MARKDOWN + TEXT)
        raise InputError(
            f"{path} holds neither corpus.jsonl (BEIR), nor .parquet files, nor texts ({endings}).",
            path=path,
        )

    def documents() -> Iterator[Found[Document]]:
        for file in files:
            # The id is the path below the folder, with forward slashes.
            yield str(file), document_of_text(file, file.relative_to(root).as_posix())

    ignored = 0 if path.is_file() else len(files_under(path)) - len(files)
    return Source(str(path), len(files), documents, whole=True, ignored=ignored)


def lines_of(file: Path) -> int:
    """How many lines a file has.

    Raises:
        InputError: it cannot be read.
    """
    with open_input(file) as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def rows_of(file: Path) -> int:
    """How many rows a Parquet file has.

    Raises:
        InputError: it cannot be read.
    """
    with _parquet(file) as table:
        return int(table.metadata.num_rows)


def documents_of_parquet(file: Path, fields: Fields) -> Iterator[Found[Document]]:
    """Place (``file:row``) and document of each row.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    with _parquet(file) as table:
        names = list(table.schema_arrow.names)
        for what, candidates in (("id", fields.doc_id), ("text", fields.text)):
            if not set(candidates) & set(names):
                raise InputError(
                    f"{file} has no column {' or '.join(candidates)}; it has {', '.join(names)}. "
                    f"Use --{what}-field NAME.",
                    path=file,
                )
        wanted = (*fields.doc_id, *fields.title, *fields.text, *fields.url, *fields.tenant)
        columns = [name for name in wanted if name in names]
        number = 0
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            for number, row in enumerate(batch.to_pylist(), start=number + 1):  # noqa: B020
                yield f"{file}:{number}", document(row, fields)


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    """A Parquet file; what the system or pyarrow raises becomes an :class:`InputError`."""
    try:
        with import_module("pyarrow.parquet").ParquetFile(file) as table:
            yield table
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.", path=file) from error
    except ValueError as error:
        if not type(error).__module__.startswith("pyarrow"):
            raise
        raise InputError(f"{file} cannot be read: {error}.", path=file) from error


def texts_under(folder: Path) -> list[Path]:
    """Text and Markdown files of a folder, also deep in it, sorted; hidden ones are left out."""
    return sorted(filter(is_text, files_under(folder)))


def files_under(folder: Path) -> list[Path]:
    """All files of a folder, also deep in it, without hidden ones."""
    return [
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]


def is_text(path: Path) -> bool:
    """Whether a file's name ends as those of text and Markdown do."""
    return path.suffix.lower() in MARKDOWN + TEXT


def document_of_text(file: Path, doc_id: str) -> Document | InvalidRecordError:
    """The document of one file, or what is wrong with it."""
    try:
        content = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        return InvalidRecordError(f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return InvalidRecordError(f"is not UTF-8 (byte {error.start})")
    title, text = markdown(content) if file.suffix.lower() in MARKDOWN else ("", content.strip())
    if not text:
        return InvalidRecordError("holds no text")
    try:
        return Document(doc_id=doc_id, title=title or file.stem, text=text)
    except ValidationError as error:
        return InvalidRecordError(describe(error.errors(include_url=False)))


def markdown(content: str) -> tuple[str, str]:
    """Title (front matter, else the first heading of level 1, else nothing) and text of a page.

    >>> markdown("---\\ntitle: Gzip\\n---\\nOpen it.")
    ('Gzip', 'Open it.')
    """
    content = content.replace("\r\n", "\n")
    front = _FRONT_MATTER.match(content)
    text = content[front.end() :] if front else content
    named = _NAMED_TITLE.search(front.group(1)) if front else None
    if named is not None:
        return named.group(1).strip("\"'"), text.strip()
    heading = _HEADING.search(_FENCED.sub("", text))
    return (heading.group(1) if heading else ""), text.strip()
