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
        return f"{self.title}\n{self.text}" if self.title else self.text


def content_hash(text: str) -> str:
    """Names a text: equal texts are one document to training, and are not encoded twice."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
