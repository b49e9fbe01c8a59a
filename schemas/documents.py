"""Documents (topic ``documents``, compacted, key ``doc_id``; an empty value deletes)."""

import hashlib
from typing import Annotated

from pydantic import Field

from schemas.base import Change, Contract, DocId, decode_change

URL = r"^https?://\S{1,2040}$"
"""Pattern of a document's URL."""


class Document(Contract):
    """One document; split a long text into several."""

    doc_id: DocId
    title: str = ""
    text: Annotated[str, Field(min_length=1)]
    url: Annotated[
        str | None,
        Field(pattern=URL, description="where people read it"),
    ] = None
    tenant: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            description="whose document it is: callers that are limited to another tenant do not "
            "see it; absent: everyone's",
        ),
    ] = None

    @property
    def owner(self) -> str:
        """The tenant; empty: the document is everyone's."""
        return self.tenant or ""

    def embedded_text(self) -> str:
        """The text that the encoder reads."""
        return embedded_text(self.title, self.text)

    def fingerprint(self) -> str:
        """Differs if the embedded text or the owner differs: a row with another one is stale."""
        text = self.embedded_text()
        return content_hash(f"{self.owner}\0{text}" if self.owner else text)


def seen_by(tenant: str) -> tuple[str, ...]:
    """The owners whose documents a tenant may see.

    >>> seen_by("acme"), seen_by("")
    (('', 'acme'), ('',))
    """
    return ("", tenant) if tenant else ("",)


def may_see(tenant: str | None, owner: str) -> bool:
    """Whether a tenant may see the documents of an owner; ``None``: a caller without limits."""
    return tenant is None or owner in seen_by(tenant)


def embedded_text(title: str, text: str) -> str:
    """Title and text of a document, as encoder and BM25 read them."""
    return f"{title}\n{text}" if title else text


def content_hash(text: str) -> str:
    """Identifies a text: training treats equal texts as one document, and they are encoded once."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_change(key: bytes | None, value: bytes | None) -> Change[Document]:
    """The change that a record of ``documents`` makes to the document of its key; never raises."""
    return decode_change(Document, "doc_id", key, value)


def encode(document: Document) -> tuple[bytes, bytes]:
    """Key and value of a document's record."""
    return document.doc_id.encode(), document.to_json()


def encode_deletion(doc_id: str) -> tuple[bytes, None]:
    """Key and value of the record that deletes a document."""
    return doc_id.encode(), None
