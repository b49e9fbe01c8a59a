"""The judge that needs no server: a small linear classifier over the reasoning after a browse.

It knows English. Its features are in ``streams/judge/features.py``, its weights in
``streams/judge/local.json`` (``python -m benchmarks.train_judge`` fits them);
``docs/decisions/0007-a-linear-judge.md`` says why it is not a list of rules.
"""

import json
from collections.abc import Mapping
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from schemas.events import Verdict
from streams import metrics
from streams.judge.features import ZONES, Feature, Reading, plain_text, read
from streams.judge.language import is_english

VERSION = "7"
"""Raised whenever the features or the weights change."""

WEIGHTS_FILE = Path(__file__).with_name("local.json")


class Weights(NamedTuple):
    """Log odds without any feature, and what each feature of a zone adds to them."""

    bias: float
    zones: tuple[Mapping[Feature, float], ...]


class LocalJudge:
    """Relevant, unless the text says that the document did not help."""

    name = "local"
    version = VERSION

    def __init__(self) -> None:
        """Reads the weights, so that a broken installation shows at start."""
        weights()

    def verdict(self, text: str) -> Verdict:
        """The verdict of the classifier; an unknown one is counted with its reason."""
        verdict = verdict_of(text)
        if verdict == "unknown":
            metrics.UNKNOWN.labels("language" if text.strip() else "empty").inc()
        return verdict

    async def judge(self, text: str) -> Verdict:
        """The same."""
        return self.verdict(text)

    async def aclose(self) -> None:
        """Nothing to release."""


def verdict_of(text: str) -> Verdict:
    """Relevant, irrelevant, or (white space, another language than English) unknown.

    >>> verdict_of("The page doesn't name the architect. Let's try another one.")
    'irrelevant'
    >>> verdict_of("Although it does not name her, it does mention the film.")
    'relevant'
    >>> verdict_of("Das Dokument nennt den Architekten nicht.")
    'unknown'
    """
    plain = plain_text(text)
    if not plain:
        return "unknown"
    reading = read(plain)
    if not is_english(plain, reading.anywhere):
        return "unknown"
    return "irrelevant" if score(reading, weights()) > 0.0 else "relevant"


def score(reading: Reading, weights: Weights) -> float:
    """Log odds that the document did not help: the sum of the features' weights."""
    total = weights.bias
    for weight, found in zip(weights.zones, reading, strict=True):
        total += sum(map(weight.get, found, repeat(0.0)))
    return total


def weights_of(named: Mapping[str, float]) -> Weights:
    """The weights by zone.

    Args:
        named: by a feature's name (:func:`streams.judge.features.features`); positive ones speak
            for "irrelevant", the empty name is the bias.
    """
    zones: dict[str, dict[Feature, float]] = {zone: {} for zone in ZONES}
    for name, weight in named.items():
        zone = name[:2] if name[:2] in zones else ""
        before, space, after = name.removeprefix(zone).partition(" ")
        zones[zone][(before, after) if space else before] = weight
    return Weights(zones[""].pop("", 0.0), tuple(zones.values()))


@cache
def weights() -> Weights:
    """The weights that are shipped."""
    return weights_of(json.loads(WEIGHTS_FILE.read_text(encoding="utf-8")))
