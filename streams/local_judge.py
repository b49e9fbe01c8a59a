"""The judge that needs no server: a small linear classifier over the reasoning after a browse.

Its features are in ``streams/reasoning_features.py``, its weights in ``streams/local_judge.json``
(``python -m benchmarks.train_judge`` fits them), why it is not a list of rules in
``docs/decisions/0007-a-linear-judge.md``.
"""

import json
from collections.abc import Mapping
from functools import cache
from itertools import repeat
from pathlib import Path

from schemas.events import Verdict
from streams.reasoning_features import ZONES, Zones, read

VERSION = "4"
"""Raised whenever the features or the weights change."""

BIAS: Zones = ()
Tables = Mapping[Zones, Mapping[str, float]]

WEIGHTS_FILE = Path(__file__).with_name("local_judge.json")


class LocalJudge:
    """Relevant, unless the text says that the document did not help."""

    name = "local"
    version = VERSION

    def __init__(self) -> None:
        """Reads the weights, so that a broken installation shows at start."""
        weights()

    async def judge(self, text: str) -> Verdict:
        """The verdict of the classifier; unknown for a text of white space."""
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
    return tables[BIAS].get("", 0.0) + sum(
        sum(map(tables[zones].get, grams, repeat(0.0))) for zones, grams in read(text)
    )


def tables_of(weights: Mapping[str, float]) -> Tables:
    """For each combination of zones, feature to the sum of its weights in them.

    Args:
        weights: by zone and feature; positive speaks for "irrelevant", the empty name is the bias.
    """
    tables: dict[Zones, dict[str, float]] = {BIAS: {"": weights.get("", 0.0)}}
    for zones in ZONES:
        table: dict[str, float] = {}
        for zone, factor in zones:
            for name, weight in weights.items():
                prefix, bar, gram = name.rpartition("|")
                if prefix + bar == zone:
                    table[gram] = table.get(gram, 0.0) + factor * weight
        tables[zones] = table
    return tables


@cache
def weights() -> Tables:
    """The tables of the weights that are shipped."""
    return tables_of(json.loads(WEIGHTS_FILE.read_text(encoding="utf-8")))
