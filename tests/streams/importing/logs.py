"""Logs written for tests, imported, and the pairs that they give, as short strings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.pairs import LabelledPair
from schemas.settings import Settings
from streams.events import Event
from streams.importing.importer import Importer
from streams.importing.offline import mine

# The need of most fixtures: two searches, a document that does not help, one that does.
PLAN = "I need the year the harbour lamp was lit."
REJECTED = "That document does not mention the lamp. Let's search again."
HELPED = "The page gives the year directly: 1871."

# Worked out by hand. d1 is rejected: the first search's other hits are its negatives. d2 helps, and
# is a hit of the second search too: the rejected d1 first, then what was never opened, the latest
# search first.
NEED = [
    "harbour lamp year | irrelevant d1 | d2 d3",
    "harbour lamp lit | relevant d2 | d1 d4 d3",
]


def written(folder: Path, *values: Any, name: str = "log.json") -> Path:
    """A JSON file, of several values JSON Lines."""
    path = folder / name
    path.write_text("\n".join(json.dumps(value) for value in values) + "\n", encoding="utf-8")
    return path


def imported(path: Path, **options: Any) -> tuple[list[list[Event]], Importer]:
    """The events of each trajectory in a file or folder, and the importer with its report."""
    importer = Importer(**options)
    return [part.events for part in importer.read([path])], importer


def pairs_of(paths: list[Path], format: str, settings: Settings) -> Iterator[LabelledPair]:
    """The pairs of files of which all can be read."""
    return mine(Importer(format, strict=True).read(paths), settings)


def mined(path: Path, *, judge: str = "local", **options: Any) -> list[str]:
    """The pairs of a file or folder as short strings."""
    return [*map(short, mine(Importer(**options).read([path]), Settings(judge=judge)))]


def short(pair: LabelledPair) -> str:
    """Query, verdict and positive, negatives."""
    return f"{pair.query} | {pair.verdict} {pair.positive} | {' '.join(pair.negatives)}"


def shape(events: list[Event]) -> list[Any]:
    """Type of each event, with its own fields."""
    fields = ("query", "doc_id", "about", "name", "text")
    found = []
    for event in events:
        kind = type(event).__name__.lower()
        values = [value for field in fields if (value := getattr(event, field, None))]
        hits = [hit.doc_id for hit in getattr(event, "hits", ())]
        found.append((kind, *values, *([hits] if kind == "search" else [])))
    return found
