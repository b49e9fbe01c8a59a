"""The corpus of a simulation: documents, and the needs that some of them serve.

A folder in BEIR layout is read from corpus.jsonl, queries.jsonl, qrels/train.tsv (the needs of the
agents that training learns from) and qrels/test.tsv (the needs that are only measured). Documents
with a score of 0 are not relevant; needs without a relevant document are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path

import orjson

from retrail_runtime import corpus_files
from retrail_runtime.corpus_files import LeftOut
from retrail_runtime.files import atomic_write
from retrail_runtime.kafka import record_size
from schemas.documents import Document
from schemas.errors import InputError, InvalidRecordError
from schemas.topics import MAX_EVENT_BYTES


@dataclass(frozen=True, slots=True)
class Need:
    """An information need.

    Attributes:
        need_id: its id in the corpus.
        text: the need in words.
        relevant: grade of each document that serves it (1 if relevance is binary).
    """

    need_id: str
    text: str
    relevant: dict[str, int]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents and two disjoint sets of needs.

    Attributes:
        name: in reports.
        training: needs of the agents whose trajectories are trained on.
        unseen: needs of no trajectory; all figures are measured on these.
        left_out: messages about what was left out.
    """

    name: str
    documents: tuple[Document, ...]
    training: tuple[Need, ...]
    unseen: tuple[Need, ...]
    left_out: tuple[str, ...] = ()

    @property
    def needs(self) -> int:
        """Number of needs."""
        return len(self.training) + len(self.unseen)


def require_fitting(documents: Sequence[Document]) -> None:
    """Check that every document fits into a record.

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
    """Read a folder in BEIR layout; files may be compressed.

    Lines without a usable document, query or judgement are left out, and so are judgements about
    documents and queries that were left out.

    Raises:
        InputError: a file is missing or unreadable, a judgement is about an unknown id, or a split
            has no needs; the message names the file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. A BEIR corpus is a folder with {LAYOUT}.")
    lost_documents, lost_queries, lost_judgements = LeftOut(), LeftOut(), LeftOut()
    documents = corpus_files.by_id(
        corpus_files.read_documents(_file(folder, "corpus.jsonl")),
        attrgetter("doc_id"),
        lost_documents,
    )
    queries = corpus_files.by_id(
        corpus_files.read_queries(_file(folder, "queries.jsonl")),
        attrgetter("query_id"),
        lost_queries,
    )

    def needs(name: str) -> list[Need]:
        path = _file(folder, name)
        relevant: dict[str, dict[str, int]] = {}
        for place, found in corpus_files.read_judgements(path):
            if isinstance(found, InvalidRecordError):
                lost_judgements.add(place, found)
                continue
            for key, known, lost, file in (
                (found.query_id, queries, lost_queries, "queries.jsonl"),
                (found.doc_id, documents, lost_documents, "corpus.jsonl"),
            ):
                if key in known:
                    continue
                if key not in lost.keys:
                    raise InputError(f"{place}: {key!r} is not in {file}.", path=path)
                lost_judgements.add(
                    place, InvalidRecordError(f"about a line of {file} that was left out")
                )
                break
            else:
                if found.grade > 0:
                    relevant.setdefault(found.query_id, {})[found.doc_id] = found.grade
        if not relevant:
            raise InputError(f"{path}: no query has a document with a score above 0.", path=path)
        return [Need(name, queries[name].text, relevant[name]) for name in sorted(relevant)]

    training, unseen = needs("qrels/train.tsv"), needs("qrels/test.tsv")
    if both := sorted({n.need_id for n in training} & {n.need_id for n in unseen}):
        raise InputError(
            f"Query {both[0]} is in both {folder / 'qrels' / 'train.tsv'} and "
            f"{folder / 'qrels' / 'test.tsv'} ({len(both)} such queries). Remove the queries of "
            "test.tsv, which are only measured, from train.tsv."
        )
    return Corpus(
        folder.resolve().name,
        tuple(documents.values()),
        tuple(training),
        tuple(unseen),
        tuple(
            chain(*(lost.messages() for lost in (lost_documents, lost_queries, lost_judgements)))
        ),
    )


def write_beir(corpus: Corpus, folder: Path) -> None:
    """Write a corpus as a folder in BEIR layout; files that exist are replaced."""
    needs = (*corpus.training, *corpus.unseen)
    documents = [{"_id": d.doc_id, "title": d.title, "text": d.text} for d in corpus.documents]
    queries = [{"_id": need.need_id, "text": need.text} for need in needs]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        atomic_write(folder / name, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    for name, half in (("train", corpus.training), ("test", corpus.unseen)):
        lines = [
            [need.need_id, doc_id, str(grade)]
            for need in half
            for doc_id, grade in sorted(need.relevant.items())
        ]
        text = "".join("\t".join(line) + "\n" for line in [_HEADER, *lines])
        atomic_write(folder / "qrels" / f"{name}.tsv", text.encode())


def _file(folder: Path, name: str) -> Path:
    path = corpus_files.find(folder, name)
    if path is None:
        raise InputError(
            f"{folder / name} is missing. A BEIR corpus is a folder with {LAYOUT}.",
            path=folder / name,
        )
    return path
