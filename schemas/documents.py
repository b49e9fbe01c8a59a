"""Documents: what is searched (topic ``documents``, compacted, key ``doc_id``; empty deletes)."""

import hashlib
from typing import Annotated

from pydantic import Field

from schemas.base import Contract, DocId


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
