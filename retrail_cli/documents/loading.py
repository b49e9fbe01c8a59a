"""What ``retrail documents load`` sends: new and changed documents or chunks, and deletions.

Long texts are cut into chunks that an encoder reads whole. Lengths are in tokens that depend on no
model, so chunks and their ids stay the same when the retriever changes: words (of 16 characters at
most), single marks, and single characters of scripts without spaces between words. A model has
about a quarter more tokens, for English.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from retrail_runtime.kafka import Outgoing
from schemas import documents
from schemas.base import describe
from schemas.documents import Document
from schemas.errors import InputError, InvalidRecordError
from schemas.topics import MAX_EVENT_BYTES

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]{{1,16}}|[^\w\s]")
_NUMBERED = re.compile(r"#(0|[1-9][0-9]*)$")
_ENDS_SENTENCE = frozenset(".!?…")
_ENDS_SENTENCE_WITHOUT_SPACE = frozenset("。！？")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How texts are cut: at most ``tokens`` each, the last ``overlap`` of which come again.

    Raises:
        InputError: the overlap is above half the size.
    """

    tokens: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.tokens // 2:
            raise InputError(
                f"Chunks of {self.tokens} tokens can overlap by {self.tokens // 2} at most, not "
                f"by {self.overlap}."
            )


def chunks(document: Document, how: Chunking) -> Iterator[Document]:
    """The parts of a document, with its title, URL and tenant: ``<id>#0``, ``<id>#1``, ….

    One that is short enough is one chunk, ``<id>#0``, so that its id stays when it grows.

    Raises:
        ValidationError: an id with its number has more than 512 characters.
    """
    for number, text in enumerate(parts(document.text, how)):
        yield Document(
            doc_id=f"{document.doc_id}#{number}",
            title=document.title,
            text=text,
            url=document.url,
            tenant=document.tenant,
        )


def chunk_of(doc_id: str) -> tuple[str, int] | None:
    """Document and number of a chunk's id; ``None`` if it is none.

    >>> chunk_of("guide.md#12"), chunk_of("guide.md")
    (('guide.md', 12), None)
    """
    found = _NUMBERED.search(doc_id)
    return None if found is None else (doc_id[: found.start()], int(found.group(1)))


def parts(text: str, how: Chunking) -> list[str]:
    """Cut a text; at the end of a paragraph, else a sentence, a line or a word, where one is near.

    "Near" is the last third of a part. Each part is a piece of the text as it stands.

    >>> parts("One two. Three four five.", Chunking(tokens=4, overlap=0))
    ['One two.', 'Three four five.']
    """
    spans = [found.span() for found in _TOKEN.finditer(text)]
    if not spans:
        return [text]
    found, first = [], 0
    while True:
        end = _cut(text, spans, first, how.tokens)
        found.append(text[spans[first][0] : spans[end - 1][1]])
        if end == len(spans):
            return found
        first = end - how.overlap


def _cut(text: str, spans: list[tuple[int, int]], first: int, size: int) -> int:
    """The token before which a part that begins with ``first`` ends."""
    last = first + size
    if last >= len(spans):
        return len(spans)
    candidates = range(last, first + size - size // 3 - 1, -1)
    return max(candidates, key=lambda end: (_quality(text, spans, end), end))


def _quality(text: str, spans: list[tuple[int, int]], end: int) -> int:
    """How good a place the gap before token ``end`` is for a cut."""
    before, after = spans[end - 1][1], spans[end][0]
    gap = text[before:after]
    if gap.count("\n") > 1:
        return 3
    mark = text[before - 1]
    if (gap and mark in _ENDS_SENTENCE) or mark in _ENDS_SENTENCE_WITHOUT_SPACE:
        return 2
    if "\n" in gap:
        return 1
    return 0 if gap else -1


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
        tenant: of documents that name none.
        loaded: documents that are on the topic now.
        parts: their records: a document that is cut has one for each chunk.
        repeated: those that replaced one of this load, by its id.
    """

    there: OnTopic
    prefix: str = ""
    everything: bool = False
    tenant: str | None = None
    loaded: int = 0
    parts: int = 0
    sent: int = 0
    unchanged: int = 0
    deleted: int = 0
    repeated: int = 0
    _seen: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        cut = "" if self.parts == self.loaded else f", in {self.parts:,} parts"
        counts = f"{cut}: {self.sent:,} sent, {self.unchanged:,} unchanged"
        return f"{counts}, {self.deleted:,} deleted" if self.deleted else counts

    def records(self, document: Document, chunking: Chunking | None) -> Iterator[Outgoing]:
        """What has to be sent for one document.

        Raises:
            InvalidRecordError: with the prefix or a chunk's number the id is too long, or the
                document is too large for the topic.
        """
        doc_id = self.prefix + document.doc_id
        try:
            changes = {"doc_id": doc_id, "tenant": document.tenant or self.tenant}
            named = Document.model_validate(document.model_dump() | changes)
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
        self.parts += len(parts)
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
