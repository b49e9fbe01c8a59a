"""Labelled reasonings of ``tests/streams/reasonings``, for the judge's benchmark and training.

A line is ``+`` (the document helped) or ``-`` and a text, in which ``\\n`` is a line break. A line
``# …`` names the author or manner of those below it.
"""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent.parent / "tests" / "streams" / "reasonings"


class Labelled(NamedTuple):
    """One text; ``irrelevant`` is what a person reads in it."""

    irrelevant: bool
    text: str
    source: str


def labelled(part: str) -> list[Labelled]:
    """The texts of one file, in its order."""
    found = []
    source = part
    for line in (FOLDER / f"{part}.txt").read_text().splitlines():
        if line.startswith("#"):
            source = line[1:].strip()
        elif line.strip():
            found.append(Labelled(line[0] == "-", line[2:].replace("\\n", "\n"), source))
    return found
