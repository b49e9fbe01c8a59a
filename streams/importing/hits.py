"""Hits in the result of a search (JSON or text, one query or several), and their documents."""

import re
from collections.abc import Iterable
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from schemas.documents import Document, content_hash
from schemas.errors import InvalidRecordError
from streams.importing.files import json_in
from streams.importing.readers import Call
from streams.importing.tools import SearchTool, at, first, texts


class Found(Struct, frozen=True, gc=False):
    """A hit as the search wrote it.

    Attributes:
        doc_id: its id; empty if the hit has only a text.
        others: other ids and names of it, in ``documents`` or in calls that open it.
        text: of the document, or of a part of it.
    """

    doc_id: str
    others: tuple[str, ...] = ()
    title: str = ""
    text: str = ""
    score: float | None = None


Answer = tuple[str, list[Found]]
"""A query, and the hits that the result gives for it."""


def answers(queries: list[str], call: Call, tool: SearchTool) -> tuple[list[Answer], bool]:
    """Each query that the result answers, with its hits; and whether the result is ambiguous.

    A result is ambiguous if nothing in it assigns the hits to one of several queries: then all are
    hits of the first query.
    """
    if call.failed:
        return [(queries[0], [])], False
    found = json_in(call.result)
    value = call.result if isinstance(found, InvalidRecordError) else found
    if call.doc_ids is None and len(queries) > 1:
        by_query = (
            _split_text(queries, value, tool)
            if isinstance(value, str)
            else _split_json(queries, value, tool)
        )
        if by_query:
            return by_query, False
    hits = _in_text(value, tool) if isinstance(value, str) else _in_json(value, tool)
    if call.doc_ids is not None:
        hits = _beside(call.doc_ids, hits)
    return [(queries[0], hits)], len(queries) > 1 and bool(hits)


def _beside(doc_ids: tuple[str, ...], hits: list[Found]) -> list[Found]:
    """Hits with the ids that stand beside the result; the ids in the result are other names."""
    if len(hits) != len(doc_ids):
        return [Found(doc_id) for doc_id in doc_ids]
    return [
        replace(hit, doc_id=doc_id, others=(hit.doc_id, *hit.others))
        for doc_id, hit in zip(doc_ids, hits, strict=True)
    ]


def _split_json(queries: list[str], value: Any, tool: SearchTool) -> list[Answer]:
    if isinstance(value, dict):
        named = [(query, value[query]) for query in queries if query in value]
        if named:
            return [(query, _in_json(part, tool)) for query, part in named]
        lists = (at(value, path) for path in tool.hits)
        value = next((found for found in lists if isinstance(found, list)), None)
    if not isinstance(value, list):
        return []
    if len(value) == len(queries) and all(isinstance(part, list) for part in value):
        return [(q, _in_json(part, tool)) for q, part in zip(queries, value, strict=True)]
    named = [(str(first(part, tool.query)), part) for part in value if isinstance(part, dict)]
    return [(query, _in_json(part, tool)) for query, part in named if query in queries]


def _in_json(value: Any, tool: SearchTool) -> list[Found]:
    for path in tool.hits:
        items = at(value, path)
        if isinstance(items, list):
            hits = [hit for item in items if (hit := _hit(item, tool)) is not None]
            if hits:
                return hits
    return []


def _hit(item: Any, tool: SearchTool) -> Found | None:
    if isinstance(item, str | int):
        return Found(str(item).strip()) if str(item).strip() else None
    if not isinstance(item, dict):
        return None
    named = texts(first(item, tool.id))
    found = (at(item, path) for path in tool.other_ids)
    others = tuple(name for value in found if value is not None for name in texts(value))
    text, score = first(item, tool.text), first(item, tool.score)
    if not (named or others or isinstance(text, str)):
        return None
    return Found(
        doc_id=named[0] if named else next(iter(others), ""),
        others=others,
        title=" ".join(texts(first(item, tool.title))),
        text=text if isinstance(text, str) else "",
        score=float(score) if isinstance(score, int | float) and isfinite(score) else None,
    )


def _in_text(text: str, tool: SearchTool) -> list[Found]:
    return [_named(match) for match in _matches(text, tool)]


def _matches(text: str, tool: SearchTool) -> list[re.Match[str]]:
    """All matches of the first pattern that matches."""
    for pattern in tool.expressions():
        if found := [match for match in pattern.finditer(text) if match["id"].strip()]:
            return found
    return []


def _named(match: re.Match[str]) -> Found:
    title = match["title"] if "title" in match.re.groupindex else None
    return Found(match["id"].strip(), title=title.strip() if title else "")


def _split_text(queries: list[str], text: str, tool: SearchTool) -> list[Answer]:
    """Hits by the heading above them; a heading repeats a query."""
    headings = _headings(queries, text)
    if not headings:
        return []
    by_query: dict[str, list[Found]] = {query: [] for _, query in headings}
    for match in _matches(text, tool):
        above = [query for start, query in headings if start <= match.start()]
        by_query[above[-1] if above else headings[0][1]].append(_named(match))
    return list(by_query.items())


_QUOTES = "'\"`‘’“”«»"
_LABEL = re.compile(r"[\W\d]*(?:(?:web|search|results?|query|queries|for)[\W\d]+)*", re.IGNORECASE)


def _headings(queries: list[str], text: str) -> list[tuple[int, str]]:
    """Place and query of the lines that begin a section of the text and repeat a query."""
    found: dict[int, str] = {}
    for query in sorted(queries, key=len):
        place = text.find(query)
        while place >= 0:
            start = text.rfind("\n", 0, place) + 1
            end = text.find("\n", place)
            line = text[start : end if end >= 0 else None]
            if _begins_section(text, start) and _repeats(line, query):
                found[start] = query
            place = text.find(query, place + len(query))
    return sorted(found.items())


def _begins_section(text: str, start: int) -> bool:
    """Whether a line is the first, is a Markdown heading, or follows a blank line or a rule."""
    above = text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : max(start - 1, 0)]
    return text[start] == "#" or not above.strip(" \t\r=*_-")


def _repeats(line: str, query: str) -> bool:
    before, there, after = line.partition(query)
    if not there:
        return False
    quoted = before[-1:] in _QUOTES and after[:1] in _QUOTES and bool(before and after)
    return quoted or (_LABEL.fullmatch(before) is not None and not after.strip(" \t\r:.*_#"))


_PORTS = {"http": 80, "https": 443}


class Documents:
    """Ids of the documents, and digests of their texts; about 300 bytes of memory each."""

    def __init__(self, documents: Iterable[Document] = ()) -> None:
        self._ids: set[str] = set()
        self._by_content: dict[str, str] = {}
        for document in documents:
            self.put(document)

    def put(self, document: Document) -> None:
        """Add or replace a document."""
        self._ids.add(document.doc_id)
        for text in {document.text, document.embedded_text()}:
            self._by_content[content_hash(text.strip())] = document.doc_id

    def remove(self, doc_id: str) -> None:
        """Delete a document."""
        self._ids.discard(doc_id)

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, hit: Found) -> str | None:
        """The id of a hit's document: by its id, by its other ids, by its whole text."""
        for name in (hit.doc_id, *hit.others):
            if name in self._ids:
                return name
        same = self._by_content.get(content_hash(hit.text.strip())) if hit.text else None
        return same if same in self._ids else None


def url_key(name: str) -> str | None:
    """A normalised URL, for comparison; ``None`` if ``name`` is not an HTTP URL.

    The scheme (http or https), the default port, the fragment and a trailing slash are ignored.

    >>> url_key("https://Example.org:443/lamp/#history") == url_key("http://example.org/lamp")
    True
    """
    if "://" not in name:
        return None
    try:
        parts = urlsplit(name)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    place = parts.hostname if port in (None, _PORTS[parts.scheme]) else f"{parts.hostname}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{place}{parts.path.rstrip('/')}{query}"
