"""Labelled reasonings of ``tests/streams/reasonings``, for the judge's benchmark and training.

Of a ``.txt`` file a line is ``+`` (the document helped) or ``-`` and a text, in which ``\\n`` is a
line break; a line ``# …`` names the author or manner of those below it. Of a ``.jsonl`` file a line
is an object with ``label``, ``style``, ``source`` and ``text``. ``phrases.json`` holds sentences to
put together.
"""

import json
import random
import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent.parent / "tests" / "streams" / "reasonings"

PHRASES = "phrases"
_BEFORE, _AFTER, _MORE = (0, 0, 1, 1, 2), (0, 1, 1, 2), 0.3
_SEPARATORS = (" ", " ", " ", "\n", "\n\n")
_SLOT = re.compile(r"\{(\w+)\}")
_SECOND = {"need2": "need", "fact2": "fact"}


class Labelled(NamedTuple):
    """One text; ``irrelevant`` is what a person reads in it, ``source`` its author or manner."""

    irrelevant: bool
    text: str
    source: str


def labelled(part: str) -> list[Labelled]:
    """The texts of one file, in its order."""
    if (file := FOLDER / f"{part}.jsonl").exists():
        rows = map(json.loads, file.read_text().splitlines())
        return [Labelled(row["label"] == "irrelevant", row["text"], row["style"]) for row in rows]
    found = []
    source = part
    for line in (FOLDER / f"{part}.txt").read_text().splitlines():
        if line.startswith("#"):
            source = line[1:].strip()
        elif line.strip():
            found.append(Labelled(line[0] == "-", line[2:].replace("\\n", "\n"), source))
    return found


def composed(each: int, seed: int = 0) -> list[Labelled]:
    """Texts around each telling sentence of ``phrases.json``.

    What stands before and after is drawn from the same sentences for both labels, so that a fit
    learns that these carry no information.

    Args:
        each: texts for each telling sentence.
        seed: the same one gives the same texts.
    """
    phrases = json.loads((FOLDER / f"{PHRASES}.json").read_text())
    draw = random.Random(seed)
    return [
        Labelled(label == "irrelevant", _around(sentence, label, phrases, draw), PHRASES)
        for label in ("irrelevant", "relevant")
        for sentence in phrases[label]
        for _ in range(each)
    ]


def _around(sentence: str, label: str, phrases: dict[str, list[str]], draw: random.Random) -> str:
    sentences = [draw.choice(phrases["before"]) for _ in range(draw.choice(_BEFORE))]
    sentences.append(sentence)
    if draw.random() < _MORE:
        sentences.append(draw.choice(phrases[label]))
    sentences += [draw.choice(phrases["after"]) for _ in range(draw.choice(_AFTER))]
    # One text has one subject; all else may differ from slot to slot.
    slots = phrases | {"thing": [draw.choice(phrases["thing"])]}
    return draw.choice(_SEPARATORS).join(_filled(sentence, slots, draw) for sentence in sentences)


def _filled(sentence: str, slots: dict[str, list[str]], draw: random.Random) -> str:
    def value(slot: re.Match[str]) -> str:
        name = slot[1][0].lower() + slot[1][1:]
        found = draw.choice(slots[_SECOND.get(name, name)])
        return found if name == slot[1] else found[0].upper() + found[1:]

    filled = _SLOT.sub(value, sentence)
    return filled[0].upper() + filled[1:] if draw.random() < 0.8 else filled
