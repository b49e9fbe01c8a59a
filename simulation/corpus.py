"""Any corpus in BEIR layout, as a corpus of the simulation.

::

    corpus.jsonl        {"_id", "title"?, "text"} a line
    queries.jsonl       {"_id", "text"} a line
    qrels/train.tsv     query-id, corpus-id, score: the needs of the agents that are learned from
    qrels/test.tsv      the same columns: the needs that are never seen

Source: Thakur et al., "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of Information
Retrieval Models", 2021. Documents with a score of 0 do not help; they are
left out. Needs without a helpful document are left out too. Whatever else is wrong is an error
that names file and line, because figures over half a corpus would look like figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrail_runtime.files import read_json_lines, read_lines
from retrail_runtime.kafka import record_size
from schemas.base import describe
from schemas.documents import Document
from schemas.errors import InputError, InvalidRecordError
from schemas.topics import MAX_EVENT_BYTES


@dataclass(frozen=True, slots=True)
class Need:
    """What someone wants to know.

    Attributes:
        need_id: its name in the corpus.
        text: the need in words.
        relevant: grade of each document that serves it (1 where relevance is yes or no).
    """

    need_id: str
    text: str
    relevant: dict[str, int]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents and two disjoint sets of needs.

    Attributes:
        name: for reports.
        training: needs of the agents that are learned from.
        unseen: needs that no trajectory is ever about; all figures are measured on these.
    """

    name: str
    documents: tuple[Document, ...]
    training: tuple[Need, ...]
    unseen: tuple[Need, ...]

    @property
    def needs(self) -> int:
        """How many needs there are in all."""
        return len(self.training) + len(self.unseen)


def require_fitting(documents: Sequence[Document]) -> None:
    """Check before the work that the topic takes every document.

    Raises:
        InputError: one is too large.
    """
    for document in documents:
        size = record_size(document.doc_id.encode(), document.to_json())
        if size > MAX_EVENT_BYTES:
            raise InputError(
                f"Document {document.doc_id} has {size:,} bytes; the topic takes "
                f"{MAX_EVENT_BYTES:,}. Split it into several documents."
            )


LAYOUT = "corpus.jsonl, queries.jsonl, qrels/train.tsv and qrels/test.tsv"
_HEADER = ["query-id", "corpus-id", "score"]


def load_beir(folder: Path) -> Corpus:
    """Read a folder.

    Raises:
        InputError: a file is missing or unreadable, a line is broken, an id is named twice or is
            unknown, or a split has no needs; the message names file and line.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. A BEIR corpus is a folder with {LAYOUT}.")
    documents = _documents(folder / "corpus.jsonl")
    queries = _queries(folder / "queries.jsonl")
    training = _needs(folder / "qrels" / "train.tsv", queries, documents)
    unseen = _needs(folder / "qrels" / "test.tsv", queries, documents)
    if both := sorted({n.need_id for n in training} & {n.need_id for n in unseen}):
        raise InputError(
            f"Query {both[0]} is in both {folder / 'qrels' / 'train.tsv'} and "
            f"{folder / 'qrels' / 'test.tsv'} ({len(both)} such queries). The needs in test.tsv "
            "are those that are never seen: take them out of train.tsv."
        )
    return Corpus(folder.resolve().name, tuple(documents.values()), tuple(training), tuple(unseen))


def _documents(path: Path) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for place, row in _json_lines(path):
        doc_id = _string(row, "_id", place)
        if doc_id in found:
            raise InputError(f"{place}: document {doc_id!r} was there before.")
        try:
            found[doc_id] = Document(
                doc_id=doc_id, title=row.get("title") or "", text=_string(row, "text", place)
            )
        except ValidationError as error:
            raise InputError(f"{place}: {describe(error.errors(include_url=False))}") from error
    return found


def _queries(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, row in _json_lines(path):
        query_id = _string(row, "_id", place)
        if query_id in found:
            raise InputError(f"{place}: query {query_id!r} was there before.")
        found[query_id] = _string(row, "text", place)
    return found


def _needs(path: Path, queries: dict[str, str], documents: dict[str, Document]) -> list[Need]:
    relevant: dict[str, dict[str, int]] = {}
    for number, (place, line) in enumerate(read_lines(_existing(path))):
        cells = line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
        if number == 0 and cells[:2] == _HEADER[:2]:
            continue
        if len(cells) != len(_HEADER):
            raise InputError(
                f"{place}: {len(cells)} columns, where {' <tab> '.join(_HEADER)} are expected."
            )
        query_id, doc_id, score = cells
        if query_id not in queries:
            raise InputError(f"{place}: query {query_id!r} is not in queries.jsonl.")
        if doc_id not in documents:
            raise InputError(f"{place}: document {doc_id!r} is not in corpus.jsonl.")
        try:
            grade = int(score)
        except ValueError:
            raise InputError(f"{place}: the score {score!r} is no whole number.") from None
        if grade > 0:
            relevant.setdefault(query_id, {})[doc_id] = grade
    if not relevant:
        raise InputError(f"{path}: no query has a document with a score above 0.")
    return [Need(query_id, queries[query_id], relevant[query_id]) for query_id in sorted(relevant)]


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, row in read_json_lines(_existing(path)):
        if isinstance(row, InvalidRecordError):
            raise InputError(f"{place}: {row}.", path=path)
        yield place, row


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path} is missing. A BEIR corpus is a folder with {LAYOUT}.", path=path)
    return path


def _string(row: dict[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    # Some corpora number their documents.
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: {field!r} is missing, empty or no string.")
    return value
