"""What is on the documents topic already, and what a load has to send."""

import hashlib
from collections.abc import Iterable

from retrail_cli.documents.chunking import chunk_of


class OnTopic:
    """Ids and digests of the documents that exist; about 250 bytes of memory each.

    Example:
        >>> there = OnTopic()
        >>> there.put("a", b"{}")
        >>> there.has("a", b"{}"), there.has("a", b"[]")
        (True, False)
    """

    def __init__(self, records: Iterable[tuple[bytes | None, bytes | None]] = ()) -> None:
        """The state after these keys and values of the topic, in the order of each partition."""
        self._digests: dict[str, bytes] = {}
        self._chunks: dict[str, int] = {}
        for key, value in records:
            # What is no UTF-8 is no document's id either; index workers put it aside.
            doc_id = (key or b"").decode(errors="replace")
            self.put(doc_id, value)

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def has(self, doc_id: str, value: bytes) -> bool:
        """Whether this very document is there."""
        return self._digests.get(doc_id) == _digest(value)

    def put(self, doc_id: str, value: bytes | None) -> None:
        """A record was sent; nothing as its value deletes."""
        if not value:
            self._digests.pop(doc_id, None)
            return
        self._digests[doc_id] = _digest(value)
        if (chunk := chunk_of(doc_id)) is not None:
            base, number = chunk
            self._chunks[base] = max(self._chunks.get(base, 0), number + 1)

    def chunks(self, doc_id: str, start: int = 0) -> list[str]:
        """Ids of the chunks of a document that are there, from number ``start`` on."""
        ids = (f"{doc_id}#{number}" for number in range(start, self._chunks.get(doc_id, 0)))
        return [chunk for chunk in ids if chunk in self._digests]


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16).digest()
