"""How an agent without a language model reads: content words, and how many two texts share."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

SNIPPET_WORDS = 30
_WORD = re.compile(r"[a-z][a-z0-9]+")
_ENDINGS = ("ations", "ation", "ings", "ing", "ers", "er", "ies", "ied", "ed", "es", "s", "ly")

_STOPWORDS = """
    a about all also an and any are as at be been but by can do does each either else for
    from given has have how if in into is it its may more must no not of on one only or
    other out over should so some such than that the their them then there these they this
    to two up used using was were what when where which while who will with without would
    you your
"""
STOPWORDS = frozenset(_STOPWORDS.split())


def content_words(text: str) -> list[str]:
    """Words that carry meaning, lower case, in order, repeats kept."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOPWORDS]


def stem(word: str) -> str:
    """The word without a common English ending, so that *opens* and *opening* meet.

    >>> stem("opening"), stem("opens"), stem("is")
    ('open', 'open', 'is')
    """
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def stems(text: str) -> set[str]:
    """Stems of the content words."""
    return {stem(word) for word in content_words(text)}


def overlap(need: Iterable[str], text: str) -> float:
    """Share of the need's stems that occur in the text; 0 if the need has none."""
    wanted = set(need)
    return len(wanted & stems(text)) / len(wanted) if wanted else 0.0


def snippet(need: Iterable[str], text: str) -> str:
    """The stretch of the text with most of the need's stems: what a result page shows."""
    wanted = set(need)
    return max(_stretches(text), key=lambda stretch: len(wanted & stretch.stems)).text


@dataclass(frozen=True, slots=True)
class _Stretch:
    text: str
    stems: frozenset[str]


@lru_cache(maxsize=50_000)
def _stretches(text: str) -> tuple[_Stretch, ...]:
    """Overlapping stretches of :data:`SNIPPET_WORDS` words; cached, as hits come up again."""
    words = text.split()
    starts = range(0, max(1, len(words) - SNIPPET_WORDS + 1), SNIPPET_WORDS // 3)
    parts = [" ".join(words[start : start + SNIPPET_WORDS]) for start in starts]
    return tuple(_Stretch(part, frozenset(stems(part))) for part in parts)
