"""What a load sends: the documents that the topic lacks, and deletions of chunks that are gone."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from retrail_cli.documents.chunking import Chunking, chunk_of, chunks
from retrail_runtime.kafka import Outgoing
from schemas import documents
from schemas.base import describe
from schemas.documents import Document
from schemas.errors import InvalidRecordError
from schemas.topics import MAX_EVENT_BYTES


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
            change = documents.read_change(key, value)
            if change.key is not None:
                self.put(change.key, value if change.value is not None else None)

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self._digests

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


@dataclass
class Load:
    """What a load has done so far.

    Attributes:
        there: the topic, kept as it will be when the load is done.
        prefix: put before every id.
        everything: send unchanged documents, too.
        loaded: documents that are on the topic now.
        repeated: those that replaced one of this load, by its id.
    """

    there: OnTopic
    prefix: str = ""
    everything: bool = False
    loaded: int = 0
    sent: int = 0
    unchanged: int = 0
    deleted: int = 0
    repeated: int = 0
    _seen: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        counts = f"{self.sent:,} sent, {self.unchanged:,} unchanged"
        return f"{counts}, {self.deleted:,} deleted" if self.deleted else counts

    def records(self, document: Document, chunking: Chunking | None) -> Iterator[Outgoing]:
        """What has to be sent for one document.

        Raises:
            InvalidRecordError: with the prefix or a chunk's number the id is too long, or the
                document is too large for the topic.
        """
        doc_id = self.prefix + document.doc_id
        try:
            named = Document(doc_id=doc_id, title=document.title, text=document.text)
            parts = [named] if chunking is None else list(chunks(named, chunking))
        except ValidationError as error:
            raise InvalidRecordError(describe(error.errors(include_url=False))) from error
        records = {part.doc_id: Outgoing(*documents.encode(part)) for part in parts}
        if (size := max(record.size for record in records.values())) > MAX_EVENT_BYTES:
            raise InvalidRecordError(
                f"document {doc_id} has {size:,} bytes; the topic takes {MAX_EVENT_BYTES:,}. Split "
                "it into several documents, or use --chunk-tokens"
            )
        self.loaded += 1
        self.repeated += doc_id in self._seen
        self._seen.add(doc_id)
        for part, record in records.items():
            assert record.value is not None
            if not self.everything and self.there.has(part, record.value):
                self.unchanged += 1
                continue
            self.sent += 1
            self.there.put(part, record.value)
            yield record
        if chunking is not None:
            yield from self._deletions(doc_id, len(parts))

    def _deletions(self, doc_id: str, parts: int) -> Iterator[Outgoing]:
        """Of what the document was before: more chunks, or whole."""
        whole = [doc_id] if doc_id in self.there else []
        for gone in [*whole, *self.there.chunks(doc_id, parts)]:
            self.deleted += 1
            self.there.put(gone, None)
            yield Outgoing(*documents.encode_deletion(gone))
