"""The judge that needs no server: a linear classifier over the reasoning after a browse.

It judges English; a text in another language is ``unknown``. The first sentences are read one by
one. The words of a closed list map to classes ("page" and "article" are both DOC, "doesn't" is
NOT) and all other words are skipped, so that a few thousand labelled texts teach the classifier
phrases with any noun and verb in them: *DOC NOT TELL*. Features are the words, the classes, and
pairs of neighbouring classes; each is present or absent. Those of the first sentence, of the last
one, and of sentences that plan the next step or repeat the question are features a second time,
because plans and questions seldom carry a verdict on the document.

This runs once for every reasoning, so its loops run in C: a regular expression a sentence,
dictionaries, sets, ``map`` and ``pairwise``.

The words are in ``words.toml``, the weights in ``local.json`` (``python -m benchmarks.train_judge``
fits them); ``docs/decisions/0007-a-linear-judge.md`` has the reasons and the accuracy.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Set
from functools import cache
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple

from schemas.events import Verdict
from streams.judge import metrics

WEIGHTS_FILE = Path(__file__).with_name("local.json")
_WORDS: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("words.toml").read_text(encoding="utf-8")
)

LENGTH_READ = 2_000
SENTENCES_READ = 24
WORDS_READ = 40
START = "^"

CLASS = {word: name for name, words in _WORDS["classes"].items() for word in words.split()} | {
    word: word for word in _WORDS["own"]["words"].split()
}
"""Word, in lower case, to its class; a word that is in no class is left out of the pairs."""

# Of a number only the last digit is taken, which is enough to show that there is one. Letters
# beyond a-z are in no word of a class, and looking for them costs half as much again.
_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|\d(?!\d)|[:;,(|?✓✔✅❌✗✘→⇒=]")
_SENTENCE_END = re.compile(r"[.!?]\s+")
_QUOTATION = re.compile(r'["“„«][^"“”„«»\n]{1,300}["“”»]')
_PLAN = re.compile(
    r"(?:(?:so|thus|ok|okay|and|then|now),? )?(?:let's|let us|let me"
    r"|we (?:need|should|could|can|must|might|will|may)|i (?:need|should|could|will|must|'ll)"
    r"|next|search|maybe|perhaps|could be|might be|try|move|possibly|the question|question:)"
    r"(?![\w'])"
)

_ENGLISH = frozenset(_WORDS["languages"]["English"].split())
_OTHERS = frozenset(" ".join(_WORDS["languages"].values()).split()) - _ENGLISH
_OTHER_LETTER = re.compile(r"[\u0370-\u1cff\u3040-\ud7ff\uf900-\ufaff\ufe70-\ufeff]")
_LATIN_LETTER = re.compile(r"[a-z\u00df-\u024f]")
_LATIN_FOR_ONE = 3
"""Latin letters that one other letter outweighs: a Chinese character is about half a word."""

Feature = str | tuple[str, str]
"""A word, a class, or a pair of neighbouring classes."""

ZONES = ("", "A|", "E|", "P|")
"""Prefixes of a feature's name: anywhere, in the first sentence, in the last one, in a plan."""


class Reading(NamedTuple):
    """The features of a text by zone, in the order of :data:`ZONES`; words only in the first."""

    anywhere: set[Feature]
    first: set[Feature]
    last: set[Feature]
    plans: set[Feature]


class Weights(NamedTuple):
    """Log odds without any feature, and what each feature of a zone adds to them."""

    bias: float
    zones: tuple[Mapping[Feature, float], ...]


class LocalJudge:
    """Relevant, unless the text says that the document did not help."""

    name = "local"
    version = "7"
    """Raised whenever the features or the weights change."""

    def __init__(self) -> None:
        """Reads the weights, so that a broken installation fails at start."""
        weights()

    @metrics.JUDGE_SECONDS.labels(name).time()
    def verdict(self, text: str) -> Verdict:
        """The verdict of the classifier; counts an unknown one with its reason."""
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


def is_english(plain: str, found: Set[object]) -> bool:
    """False only if there is evidence of another language; names alone are none.

    Frequent short words decide, and the letters only where they are not Latin: of a note like "Not
    him. Next: Rue de la Paix" the letters show little.

    Args:
        plain: the text in lower case, without what it quotes.
        found: its words; other members do no harm.

    >>> is_english("nicht relevant", {"nicht", "relevant"})
    False
    >>> is_english("telnor, łódź", {"telnor", "ód"})
    True
    """
    if not plain.isascii():
        letters = len(_OTHER_LETTER.findall(plain))
        if letters and letters * _LATIN_FOR_ONE > len(_LATIN_LETTER.findall(plain)):
            return False
    others = _OTHERS & found
    return not others or len(others) <= len(_ENGLISH & found)


def read(plain: str) -> Reading:
    """The features of a text that :func:`plain_text` gave; an only sentence is the first."""
    of_plans: list[set[Feature]] = []
    of_sentences: list[set[Feature]] = []
    of_words: list[list[str]] = []
    for sentence in sentences(plain):
        words = _TOKEN.findall(sentence)[:WORDS_READ]
        classes = [START, *filter(None, map(CLASS.get, words))]
        found: set[Feature] = {*classes, *pairwise(classes)}
        of_sentences.append(found)
        of_words.append(words)
        if _PLAN.match(sentence):
            of_plans.append(found)
    first, last = of_sentences[0], of_sentences[-1]
    nothing: set[Feature] = set()
    return Reading(
        nothing.union(*of_sentences, *of_words),
        nothing if of_plans and of_plans[0] is first else first,
        nothing if last is first else last,
        nothing.union(*of_plans),
    )


def plain_text(text: str) -> str:
    """The beginning in lower case, without what it quotes."""
    plain = text[:LENGTH_READ].strip().lower()
    if "’" in plain:
        plain = plain.replace("’", "'")
    if '"' in plain or not plain.isascii():
        plain = _QUOTATION.sub(" quoted ", plain)
    return plain


def sentences(plain: str) -> list[str]:
    """The first sentences, without the last mark of each; a line ends one."""
    lines = plain.replace("\n\n", "\n").replace("\n", ". ")
    return _SENTENCE_END.split(lines, SENTENCES_READ)[:SENTENCES_READ]


def score(reading: Reading, weights: Weights) -> float:
    """Log odds that the document did not help: the sum of the features' weights."""
    total = weights.bias
    for weight, found in zip(weights.zones, reading, strict=True):
        total += sum(map(weight.get, found, repeat(0.0)))
    return total


def weights_of(named: Mapping[str, float]) -> Weights:
    """The weights by zone.

    Args:
        named: by a feature's name (``benchmarks.train_judge.features``); positive ones mean
            "irrelevant", the empty name is the bias.
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
