"""Documents: what is searched (topic ``documents``, compacted, key ``doc_id``; empty deletes)."""

import hashlib
from typing import Annotated

from pydantic import Field

from schemas.base import Change, Contract, DocId, decode_change


class Document(Contract):
    """One document; a longer text belongs in several."""

    doc_id: DocId
    title: str = ""
    text: Annotated[str, Field(min_length=1)]

    def embedded_text(self) -> str:
        """What the encoder reads."""
        return embedded_text(self.title, self.text)


def embedded_text(title: str, text: str) -> str:
    """Title and text of a document, as encoder and BM25 read them."""
    return f"{title}\n{text}" if title else text


def content_hash(text: str) -> str:
    """Names a text: equal texts are one document to training, and are not encoded twice."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_change(key: bytes | None, value: bytes | None) -> Change[Document]:
    """What a record of ``documents`` makes of the document that is its key; never raises."""
    return decode_change(Document, "doc_id", key, value)


def encode(document: Document) -> tuple[bytes, bytes]:
    """Key and value of a document's record."""
    return document.doc_id.encode(), document.to_json()


def encode_deletion(doc_id: str) -> tuple[bytes, None]:
    """Key and value of the record that deletes a document."""
    return doc_id.encode(), None
