"""Hits in the result of a search: in JSON or in text, of one query or of several."""

import re
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from streams.importing.files import loads
from streams.importing.steps import Call
from streams.importing.tools import SearchTool, at, first, texts


@dataclass(frozen=True, slots=True)
class Found:
    """A hit as the search wrote it.

    Attributes:
        doc_id: its id; empty if only its text may name it.
        others: what also may be its id in ``documents``, or name it when it is opened.
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
    """One query with its hits for each query that the result answers; and whether it is ambiguous.

    It is if there are several queries, and nothing in the result says whose hits they are: then
    all are hits of the first query.
    """
    if call.failed:
        return [(queries[0], [])], False
    value = call.result
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        parsed = loads(value)
        value = parsed if isinstance(parsed, list | dict) else value
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
    """Ids that stand beside the result; what the result calls its hits are other names of them."""
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
    return [hit for _, hit in _matches(text, tool)]


def _matches(text: str, tool: SearchTool) -> list[tuple[int, Found]]:
    """Place and hit of each match of the first pattern that matches."""
    for pattern in tool.expressions():
        found = [
            (match.start(), Found(doc_id, title=(match.groupdict().get("title") or "").strip()))
            for match in pattern.finditer(text)
            if (doc_id := match["id"].strip())
        ]
        if found:
            return found
    return []


def _split_text(queries: list[str], text: str, tool: SearchTool) -> list[Answer]:
    """Hits by the heading that they stand under; a heading repeats a query."""
    headings = _headings(queries, text)
    if not headings:
        return []
    by_query: dict[str, list[Found]] = {query: [] for _, query in headings}
    for place, hit in _matches(text, tool):
        above = [query for start, query in headings if start <= place]
        by_query[above[-1] if above else headings[0][1]].append(hit)
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
