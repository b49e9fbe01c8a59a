"""The judge that needs no server: a small linear classifier over the reasoning after a browse.

Its features are in ``streams/reasoning_features.py``, its weights in ``streams/local_judge.json``
(``python -m benchmarks.train_judge`` fits them), why it is not a list of rules in
``docs/decisions/0007-a-linear-judge.md``.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from schemas.events import Verdict
from streams.reasoning_features import DECAY, PLAN_DECAY, read

VERSION = "4"
"""Raised whenever the features or the weights change."""

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


def score(text: str, weights: Mapping[str, float]) -> float:
    """Log odds that the document did not help: the weighted sum of the text's features."""
    total = weights.get("", 0.0)
    for number, plan, grams in read(text):
        decay = PLAN_DECAY if plan else DECAY[number]
        zone = "P|" if plan else ""
        total += decay * sum(weights.get(zone + gram, 0.0) for gram in grams)
        if not plan and number < 2:
            zone = "AB"[number] + "|"
            total += sum(weights.get(zone + gram, 0.0) for gram in grams)
    return total


@cache
def weights() -> dict[str, float]:
    """Feature to weight; positive speaks for "irrelevant", the empty name is the bias."""
    loaded: dict[str, float] = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    return loaded
