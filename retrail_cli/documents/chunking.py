"""Long texts in parts that an encoder reads whole.

Lengths are in tokens that depend on no model, so that chunks and their ids stay when the retriever
changes: words (of 16 characters at most), single marks, and single characters of scripts that put
no spaces between words. A model's own tokens are a quarter more, for English.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.documents import Document
from schemas.errors import InputError

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
    """The parts of a document, as documents ``<id>#0``, ``<id>#1``, …, all with its title.

    One that is short enough is one chunk, ``<id>#0``, so that its id stays when it grows.

    Raises:
        ValidationError: an id with its number has more than 512 characters.
    """
    for number, text in enumerate(parts(document.text, how)):
        yield Document(doc_id=f"{document.doc_id}#{number}", title=document.title, text=text)


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
