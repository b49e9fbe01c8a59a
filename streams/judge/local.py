"""The judge that needs no server: a small linear classifier over the reasoning after a browse.

Its features are in ``streams/judge/features.py``, its weights in ``streams/judge/local.json``
(``python -m benchmarks.train_judge`` fits them); ``docs/decisions/0007-a-linear-judge.md`` says why
it is not a list of rules.
"""

import json
from collections.abc import Mapping
from functools import cache
from itertools import pairwise, repeat
from pathlib import Path
from typing import NamedTuple

from schemas.events import Verdict
from streams.judge.features import ALL_ZONES, CLASS, Zone, read

VERSION = "6"
"""Raised whenever the features or the weights change."""

WEIGHTS_FILE = Path(__file__).with_name("local.json")


class Table(NamedTuple):
    """What the features of one zone weigh; a word's weight includes that of its class."""

    words: Mapping[str, float]
    pairs: Mapping[tuple[str, str], float]


class Tables(NamedTuple):
    """Log odds without any feature, and the table of each zone."""

    bias: float
    zones: tuple[Table, ...]


class LocalJudge:
    """Relevant, unless the text says that the document did not help."""

    name = "local"
    version = VERSION

    def __init__(self) -> None:
        """Reads the weights, so that a broken installation shows at start."""
        weights()

    def verdict(self, text: str) -> Verdict:
        """The verdict of the classifier; unknown for a text of white space."""
        return verdict_of(text)

    async def judge(self, text: str) -> Verdict:
        """The same."""
        return verdict_of(text)

    async def aclose(self) -> None:
        """Nothing to release."""


def verdict_of(text: str) -> Verdict:
    """Relevant, irrelevant, or (nothing but white space) unknown.

    >>> verdict_of("That document does not directly answer. Let's search again.")
    'irrelevant'
    >>> verdict_of("Although it does not name her, it does mention the film.")
    'relevant'
    """
    if not text.strip():
        return "unknown"
    return "irrelevant" if score(text, weights()) > 0.0 else "relevant"


def score(text: str, tables: Tables) -> float:
    """Log odds that the document did not help: the weighted sum of the text's features."""
    total = tables.bias
    for number, words, classes in read(text):
        table = tables.zones[number]
        total += sum(map(table.words.get, words, repeat(0.0)))
        total += sum(map(table.pairs.get, pairwise(classes), repeat(0.0)))
    return total


def tables_of(weights: Mapping[str, float]) -> Tables:
    """The weights, summed up so that each word and each pair of classes is looked up once.

    Args:
        weights: by zone and feature; positive speaks for "irrelevant", the empty name is the bias.
    """
    return Tables(weights.get("", 0.0), tuple(_table(zone, weights) for zone in ALL_ZONES))


def _table(zone: Zone, weights: Mapping[str, float]) -> Table:
    summed: dict[str, float] = {}
    for name, weight in weights.items():
        before, bar, feature = name.rpartition("|")
        if before + bar in zone.prefixes:
            summed[feature] = summed.get(feature, 0.0) + zone.factor * weight
    words = {name: weight for name, weight in summed.items() if " " not in name}
    for word, of_class in CLASS.items():
        words[word] = summed.get(word, 0.0) + summed.get(of_class, 0.0)
    pairs = {(a, b): w for name, w in summed.items() for a, _, b in [name.partition(" ")] if b}
    return Table(words, pairs)


@cache
def weights() -> Tables:
    """The tables of the weights that are shipped."""
    return tables_of(json.loads(WEIGHTS_FILE.read_text(encoding="utf-8")))
