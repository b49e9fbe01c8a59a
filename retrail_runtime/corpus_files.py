"""Reads collections from files: documents, queries and relevance judgements.

::

    corpus.jsonl     {"_id", "title"?, "text", "url"?, "tenant"?} a line, as in BEIR
    queries.jsonl    {"_id", "text"} a line, as in BEIR
    queries.tsv      query id <tab> text
    qrels/*.tsv      query id <tab> document id <tab> score, as in BEIR, with or without a header
    qrels.txt        query id, iteration, document id and grade, as in TREC

Files may be compressed (gzip, Zstandard), begin with a byte order mark and end their lines with
CRLF. A line without a document, a query or a judgement gives an ``InvalidRecordError``, so that it
does not hide the other lines.

Sources: Thakur et al., "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of Information
Retrieval Models", 2021; https://trec.nist.gov/data/qrels_eng/.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from retrail_runtime.files import PACKED, read_json_lines, read_lines
from schemas.base import describe
from schemas.documents import URL, Document
from schemas.errors import InvalidRecordError

SHOWN = 20
"""Messages about what was left out, and lines that one message names."""

_HEADER = ["query-id", "corpus-id"]


class Query(NamedTuple):
    """A query and its id."""

    query_id: str
    text: str


class Judgement(NamedTuple):
    """How relevant a document is to a query; not at all below grade 1."""

    query_id: str
    doc_id: str
    grade: int


T = TypeVar("T")
Found = tuple[str, T | InvalidRecordError]
"""Place (``file:line``), and a value or why the line holds none."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of a row; the first one that is not null counts."""

    doc_id: tuple[str, ...] = ("doc_id", "_id", "id")
    title: tuple[str, ...] = ("title",)
    text: tuple[str, ...] = ("text",)
    url: tuple[str, ...] = ("url",)
    tenant: tuple[str, ...] = ("tenant",)

    @classmethod
    def of(
        cls, doc_id: str | None, title: str | None, text: str | None, url: str | None = None
    ) -> "Fields":
        """These names, or the default where one is absent."""
        named = {"doc_id": doc_id, "title": title, "text": text, "url": url}
        return cls(**{field: (name,) for field, name in named.items() if name})


DEFAULT_FIELDS = Fields()


def find(folder: Path, *names: str) -> Path | None:
    """The first of these files that exists in the folder, compressed or not."""
    paths = (folder / f"{name}{ending}" for name in names for ending in PACKED)
    return next(filter(Path.is_file, paths), None)


def read_documents(path: Path, fields: Fields = DEFAULT_FIELDS) -> Iterator[Found[Document]]:
    """The documents of a file of JSON Lines.

    Raises:
        InputError: the file cannot be read.
    """
    for place, row in read_json_lines(path):
        yield place, row if isinstance(row, InvalidRecordError) else document(row, fields)


def document(row: Mapping[str, Any], fields: Fields) -> Document | InvalidRecordError:
    """The document of a row; a title without a text becomes the text."""
    doc_id, title = _id(row, fields.doc_id), _first(row, fields.title) or ""
    text = _first(row, fields.text)
    if _blank(text) and not _blank(title):
        title, text = "", title
    problem = _problem(row, (fields.doc_id, doc_id), (fields.text, text))
    try:
        found = str(_first(row, fields.url))
        url = found if re.match(URL, found) else None
        tenant = _first(row, fields.tenant)
        return problem or Document(doc_id=doc_id, title=title, text=text, url=url, tenant=tenant)
    except ValidationError as error:
        return InvalidRecordError(describe(error.errors(include_url=False)), key=doc_id)


def read_queries(path: Path) -> Iterator[Found[Query]]:
    """The queries of a file: lines ``id <tab> text``, or JSON Lines if its name says so.

    Raises:
        InputError: the file cannot be read.
    """
    if ".jsonl" in path.suffixes:
        for place, row in read_json_lines(path):
            yield place, row if isinstance(row, InvalidRecordError) else _query(row)
        return
    for place, line in _texts(path):
        if isinstance(line, InvalidRecordError):
            yield place, line
        elif "\t" not in line:
            yield place, InvalidRecordError("expected query id <tab> text")
        else:
            query_id, _, text = line.partition("\t")
            yield place, _query({"_id": query_id.strip(), "text": text})


def _query(row: Mapping[str, Any]) -> Query | InvalidRecordError:
    query_id, text = _id(row, DEFAULT_FIELDS.doc_id), row.get("text")
    problem = _problem(row, (DEFAULT_FIELDS.doc_id, query_id), (("text",), text))
    return problem or Query(str(query_id), str(text).strip())


def read_judgements(path: Path) -> Iterator[Found[Judgement]]:
    """The judgements of a file in the format of BEIR or of TREC.

    Raises:
        InputError: the file cannot be read.
    """
    for number, (place, line) in enumerate(_texts(path)):
        if isinstance(line, InvalidRecordError):
            yield place, line
            continue
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split())]
        if number == 0 and cells[:2] == _HEADER:
            continue
        match cells:
            case [query_id, doc_id, grade] | [query_id, _, doc_id, grade]:
                try:
                    yield place, Judgement(query_id, doc_id, int(grade))
                except ValueError:
                    yield place, InvalidRecordError(f"the grade {grade!r} is not a whole number")
            case _:
                yield (
                    place,
                    InvalidRecordError(
                        f"{len(cells)} columns; expected query id, document id and grade, or query "
                        "id, iteration, document id and grade"
                    ),
                )


class LeftOut:
    """Counts what was left out of files; one message for all equal faults of a file.

    Attributes:
        count: how many lines or files.
        keys: the ids among them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.keys: set[str] = set()
        self._faults: dict[tuple[str, str], list[str]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, place: str, problem: InvalidRecordError) -> None:
        """What is at this place (a file, or ``file:line``) was left out."""
        self.count += 1
        if problem.key is not None:
            self.keys.add(problem.key)
        file, _, line = place.rpartition(":")
        if not line.isdigit():
            file, line = place, ""
        fault = file, str(problem)
        if fault not in self._faults and len(self._faults) == SHOWN:
            return
        lines = self._faults.setdefault(fault, [])
        self._counts[fault] = self._counts.get(fault, 0) + 1
        if line and len(lines) < SHOWN:
            lines.append(line)

    def messages(self) -> Iterator[str]:
        """For people: what was left out, and why."""
        for (file, problem), lines in self._faults.items():
            count = self._counts[file, problem]
            if count == 1:
                yield f"{':'.join([file, *lines])}: {problem}"
            else:
                more = ", …" if count > len(lines) else ""
                yield f"{file}: {problem} ({count:,} lines: {', '.join(lines)}{more})"
        if (others := self.count - sum(self._counts.values())) > 0:
            yield f"… and {others:,} more with other faults."


def by_id(found: Iterable[Found[T]], key_of: Callable[[T], str], left_out: LeftOut) -> dict[str, T]:
    """Documents or queries by id. The last one with an id counts; the others are left out."""
    values: dict[str, T] = {}
    places: dict[str, str] = {}
    for place, value in found:
        if isinstance(value, InvalidRecordError):
            left_out.add(place, value)
            continue
        key = key_of(value)
        if key in values:
            left_out.add(places[key], InvalidRecordError("a later line has the same id"))
        values[key], places[key] = value, place
    return values


def _texts(path: Path) -> Iterator[Found[str]]:
    for place, line in read_lines(path):
        try:
            yield place, line.decode()
        except UnicodeDecodeError:
            yield place, InvalidRecordError("not UTF-8")


def _problem(
    row: Mapping[str, Any], *needed: tuple[tuple[str, ...], Any]
) -> InvalidRecordError | None:
    """What is wrong if a needed field is absent or blank."""
    (_, key), *_ = needed
    key = key if isinstance(key, str) else None
    for names, value in needed:
        name = " or ".join(names)
        if value is None:
            has = ", ".join(field for field in row if row[field] is not None) or "nothing"
            return InvalidRecordError(f"has no {name}; it has {has}", key=key)
        if _blank(value):
            return InvalidRecordError(f"the {name} is empty", key=key)
        if not isinstance(value, str):
            return InvalidRecordError(
                f"the {name} is not a string but {type(value).__name__}", key=key
            )
    return None


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _id(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    found = _first(row, names)
    return str(found) if isinstance(found, int) and not isinstance(found, bool) else found


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
