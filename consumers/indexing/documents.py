"""Records of ``documents`` as what they do to an index."""

from dataclasses import dataclass

from pydantic import ValidationError

from retrail_runtime.kafka import Record
from schemas.documents import Document, content_hash
from schemas.events import describe


@dataclass(frozen=True, slots=True)
class Change:
    """The state of a document after a record.

    Attributes:
        document: ``None`` if there is none any more.
        content_hash: names what the encoder reads of it.
    """

    doc_id: str
    document: Document | None
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that is no document.

    Attributes:
        doc_id: its key, if that can be a document id: there is no such document then. (Compaction
            may have taken the record before it, so keeping the old text would make an index depend
            on when it was built.)
        exception, message: what is wrong with it.
    """

    doc_id: str | None
    exception: str
    message: str


def read_change(record: Record) -> Change | Poison:
    """Read a record; never raises."""
    try:
        doc_id = (record.key or b"").decode()
    except UnicodeDecodeError as error:
        return Poison(None, type(error).__name__, f"the key is not UTF-8: {error}")
    if not record.value:
        return Change(doc_id, None)
    try:
        document = Document.model_validate_json(record.value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        return Poison(doc_id or None, type(error).__name__, describe(details))
    if document.doc_id != doc_id:
        return Poison(
            doc_id or None, "ValueError", f"doc_id is {document.doc_id!r}, the key is {doc_id!r}"
        )
    return Change(doc_id, document, content_hash(document.embedded_text()))
