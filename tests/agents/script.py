"""Scripted agents' tasks: what the model says and calls at each turn, in any framework.

A framework's model in this folder plays a script: it counts the tool results of the conversation,
and answers with that turn. Only the standard library is needed.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]
"""A tool's answer: ``{"hits": [{"doc_id": …}, …]}`` of a search, or a document."""
Call = tuple[str, dict[str, Any]]
"""Name and arguments of a tool call."""


@dataclass(frozen=True)
class Search:
    """Call ``search``."""

    query: str
    k: int = 4


@dataclass(frozen=True)
class Open:
    """Call ``open_document`` with a hit of the last search; rank 1 is the best."""

    rank: int


@dataclass(frozen=True)
class Turn:
    """One message of the model: its text, and at most one call. Without a call it is the answer."""

    text: str
    act: Search | Open | None = None


@dataclass(frozen=True)
class Script:
    """A task from its question to the answer."""

    question: str
    turns: tuple[Turn, ...]

    def turn(self, results: list[Result]) -> Turn:
        """The model's message after these tool results."""
        return self.turns[len(results)]


GZIP = Script(
    "How do I open a gzip file and read the archives in it?",
    (
        Turn("I begin with the format.", Search("open a gzip file")),
        Turn("The second hit looks right.", Open(2)),
        Turn("Not relevant: this is about another topic and does not help at all.", Open(1)),
        Turn("Great, the document answers that directly.", Search("read archives of a format")),
        Turn("Two of them may hold it.", Open(2)),
        Turn("No useful information here. It does not mention archives.", Open(1)),
        Turn("Great, this document says how to read archives.", Search("encode notation")),
        Turn("gzip.open, then zipfile.ZipFile."),
    ),
)
"""Two needs, with a rejected document each, and a last search that finds nothing of interest."""


def call_of(
    turn: Turn, results: list[Result], *, speaks: bool = False, repeats: bool = False
) -> Call | None:
    """The call of a turn.

    Args:
        speaks: whether the text goes into the argument ``reasoning``.
        repeats: whether the model repeats the ``trajectory_id`` of the last result.
    """
    match turn.act:
        case Search(query, k):
            name, arguments = "search", {"query": query, "k": k}
        case Open(rank):
            hits = next(result["hits"] for result in reversed(results) if "hits" in result)
            name, arguments = "open_document", {"doc_id": hits[rank - 1]["doc_id"]}
        case None:
            return None
    if speaks:
        arguments["reasoning"] = turn.text
    if repeats and results:
        arguments["trajectory_id"] = results[-1]["trajectory_id"]
    return name, arguments


def read(content: Any) -> Result:
    """A tool's answer as frameworks pass it on: JSON text, perhaps in parts with a type."""
    if isinstance(content, str):
        found = json.loads(content)
        return found if "type" not in found else read(found)
    if isinstance(content, list):
        [part] = content
        return read(part)
    return read(content["text"]) if content.get("type") in ("text", "input_text") else content


async def play(
    script: Script, tool: Callable[[str, dict[str, Any]], Awaitable[Result]], **options: bool
) -> str:
    """Play a script with a function that calls tools; returns the answer.

    Args:
        options: of :func:`call_of`.
    """
    results: list[Result] = []
    while call := call_of(turn := script.turn(results), results, **options):
        results.append(await tool(*call))
    return turn.text
