"""The texts of documents, from a local copy of the compacted topic ``documents``."""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import structlog

from consumers import metrics
from consumers.releases import complaint
from retrail_runtime.following import Follower
from retrail_runtime.kafka import Record
from retrail_runtime.sqlite_keys import rows_of
from schemas.documents import Document, content_hash
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)


class TextStore(Follower):
    """Every document that exists, by id; reading is safe from any thread."""

    tables: ClassVar[str] = """
    CREATE TABLE IF NOT EXISTS documents (
        doc_id TEXT PRIMARY KEY, title TEXT NOT NULL, text TEXT NOT NULL, content_hash TEXT NOT NULL
    );
    """
    max_absence_seconds: ClassVar[float | None] = 6 * 24 * 3600.0

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, Topics.of(settings).documents, folder)

    def get(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        """The documents with these ids, without those that do not exist (any more)."""
        select = "SELECT doc_id, title, text FROM documents WHERE doc_id"
        with self.reading() as db:
            return {
                doc_id: Document(doc_id=doc_id, title=title, text=text)
                for doc_id, title, text in rows_of(db, select, doc_ids)
            }

    def known(self, doc_ids: Iterable[str]) -> set[str]:
        """Those of ``doc_ids`` that exist (still)."""
        select = "SELECT doc_id FROM documents WHERE doc_id"
        with self.reading() as db:
            return {doc_id for (doc_id,) in rows_of(db, select, doc_ids)}

    def all_ids(self) -> list[str]:
        """Every id, sorted."""
        with self.reading() as db:
            return [row[0] for row in db.execute("SELECT doc_id FROM documents ORDER BY doc_id")]

    def apply(self, db: sqlite3.Connection, records: Sequence[Record]) -> None:
        """The last record of an id wins; a malformed one is counted and changes nothing."""
        last: dict[str, Document | None] = {}
        for record in records:
            try:
                doc_id, document = read(record)
            except ValueError as error:
                metrics.INVALID_RECORDS.labels(stage="documents").inc()
                log.warning(
                    "malformed document passed over",
                    partition=record.partition,
                    offset=record.offset,
                    error=complaint(error),
                )
                continue
            last[doc_id] = document
        db.executemany(
            "DELETE FROM documents WHERE doc_id = ?",
            [(doc_id,) for doc_id, document in last.items() if document is None],
        )
        db.executemany(
            "REPLACE INTO documents VALUES (?, ?, ?, ?)",
            [
                (document.doc_id, document.title, document.text, text_hash(document))
                for document in last.values()
                if document is not None
            ],
        )


def read(record: Record) -> tuple[str, Document | None]:
    """Id and document of a record of ``documents``; ``None`` for a deletion.

    Raises:
        ValueError: the key is missing or not that of the document, or the value is no document.
    """
    if record.key is None:
        raise ValueError("a document has its id as key")
    doc_id = record.key.decode()
    if not record.value:
        return doc_id, None
    document = Document.model_validate_json(record.value)
    if document.doc_id != doc_id:
        raise ValueError(f"key {doc_id!r} is not the id of document {document.doc_id!r}")
    return doc_id, document


def text_hash(document: Document) -> str:
    """Hash of what the encoder reads: equal ones are one document to training."""
    return content_hash(document.embedded_text())
