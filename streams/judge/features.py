"""What a reasoning says, as features of a linear model (``streams/judge/local.py``).

The first sentences are read one by one. A closed list of telling words becomes classes ("page" and
"article" are both DOC, "doesn't" is NOT), all other words are left out between them, so that a
thousand labelled texts teach the model phrases with any noun and verb in them: *DOC NOT TELL*.
Features are neighbouring classes and the plain words. A sentence that plans the next step or
repeats the question is told apart by its first words; what it says is no verdict on the document.

This runs once for every reasoning, so it is left to what loops in C: a regular expression a
sentence, dictionaries, ``map`` and ``pairwise``.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

LENGTH_READ = 2_000
SENTENCES_READ = 16
WORDS_READ = 40
START = "^"

_CLASSES = {
    "DOC": "document doc docs documents page pages article articles text passage source content "
    "contents snippet site website paper file link piece section chunk portion part docid wiki "
    "wikipedia result abstract infobox description title leaflet readme material blog post "
    "biography pdf guideline statute report",
    "IT": "it this that these those they here there he she it's that's this there's here's he's "
    "she's",
    "TELL": "mention contain include address discuss provide give cover say state specify list "
    "describe show refer talk indicate reveal explain identify offer tell disclose appear cite "
    "detail define elaborate present display enumerate outline supply furnish hold carry feature "
    "bring yield containing giving",
    "TELLS": "mentions contains includes answers addresses discusses provides gives says states "
    "specifies lists describes shows refers talks indicates reveals explains identifies offers "
    "tells reports notes mentioned stated listed described shown included including named cites "
    "details defines elaborates presents displays discloses enumerates outlines supplies holds "
    "carries features brings yields documented noted recorded gave told said reported covered "
    "carried explained contained specified saying stating mentioning listing telling reads",
    "HELP": "help helps",
    "MATCH": "match matches fit fits satisfies satisfied corresponds agrees consistent matching "
    "matched confirms confirmed confirm corroborates establishes",
    "MISM": "mismatch contradicts fails failed lacks missing lack fail silent stub truncated",
    "CANNOT": "cannot can't couldn't couldnt cant unable",
    "NOT": "not never hardly barely neither nor don't doesn't didn't isn't aren't "
    "wasn't weren't hasn't haven't hadn't wouldn't shouldn't won't doesnt didnt isnt dont",
    "NO": "no none nothing nope zero without",
    "BAD": "irrelevant unrelated useless unhelpful unproductive discard reject unavailable "
    "inaccessible blank empty error paywall",
    "REL": "relevant helpful useful related pertinent applicable informative correct right "
    "promising same",
    "WRONG": "wrong incorrect namesake disambiguation redirect",
    "DIFF": "different another other else",
    "ONLY": "only just merely mostly mainly simply exclusively basically",
    "INFO": "info information data clue clues evidence indication specifics date dates year name "
    "names fact facts figure figures number numbers reference references hint hints trace sign "
    "entry entries",
    "WANT": "need needs want wants seek seeks require looking needed asks asked asking after",
    "FIND": "find found locate see seen saw got get have",
    "SEARCH": "search look query try check verify open retrieve fetch refine consult",
    "QUES": "question user task inquiry",
    "SO": "so thus therefore hence",
    "BUT": "but however yet though although while whereas still",
    "MAY": "maybe perhaps possibly could might likely probably seems seem may would should",
    "IS": "is are was were be been being am appears",
    "GOOD": "great good perfect excellent yes indeed bingo interesting finally ✓",
    "GEN": "general generic overview",
    "KNOW": "know known learn learned learnt",
    "ABOUT": "about concerns concerning regarding on covers deals",
    "WE": "we i we've we're we'd we'll i've i'm i'd i'll",
    "LET": "let let's",
    "NUM": "0 1 2 3 4 5 6 7 8 9",
}
_THEMSELVES = (
    "the a an of in for to from with by and or as at if which who whose what when all any some "
    "more very really exactly directly enough now next again first ok okay hmm wait actually "
    "unfortunately according answer final our us instead rather than even also does do did will "
    "can its : ; , ("
)
CLASS = {word: name for name, words in _CLASSES.items() for word in words.split()} | {
    word: word for word in _THEMSELVES.split()
}
"""Word, in lower case, to its class; a word that is in no class is left out of the pairs."""

# Of a number only the last digit is taken, which is enough to say that one stands there. Letters
# beyond a-z are in no word of a class, and looking for them costs half as much again.
_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|\d(?!\d)|[:;,(✓]")
_SENTENCE_END = re.compile(r"[.!?]\s+")
_QUOTATION = re.compile(r'["“][^"“”\n]{1,300}["”]')
_PLAN = re.compile(
    r"(?:(?:so|thus|ok|okay|and|then|now),? )?(?:let's|let us|let me"
    r"|we (?:need|should|could|can|must|might|will|may)|i (?:need|should|could|will|must|'ll)"
    r"|next|search|maybe|perhaps|could be|might be|try|move|possibly|the question|question:)"
    r"(?![\w'])"
)


class Zone(NamedTuple):
    """Where a sentence stands: the prefixes that its features count under, and how much."""

    prefixes: tuple[str, ...]
    factor: float


ZONES = (
    Zone(("", "A|"), 1.0),
    Zone(("", "B|"), 1.0),
    Zone(("",), 0.8),
    Zone(("",), 0.6),
    Zone(("",), 0.5),
    Zone(("",), 0.4),
    *(Zone(("", "L|"), 0.3) for _ in range(6, SENTENCES_READ)),
)
"""Of each sentence read: agents speak of the document first, and some come back to it late."""

PLAN = len(ZONES)
"""Number of the zone of plans, wherever they stand."""

ALL_ZONES = (*ZONES, Zone(("P|",), 0.3))


def features(text: str) -> dict[str, float]:
    """Feature to value: a word is named by itself, a pair by its classes with a space between."""
    found: dict[str, float] = {}
    for number, words, classes in read(text):
        zone = ALL_ZONES[number]
        for name in (*words, *classes[1:], *map(" ".join, pairwise(classes))):
            for prefix in zone.prefixes:
                found[prefix + name] = found.get(prefix + name, 0.0) + zone.factor
    return found


def read(text: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """Of each sentence read: the number of its zone, its words, and their classes from START on."""
    for number, sentence in enumerate(sentences(text)):
        words = _TOKEN.findall(sentence)[:WORDS_READ]
        zone = PLAN if _PLAN.match(sentence) else number
        yield zone, words, [START, *filter(None, map(CLASS.get, words))]


def sentences(text: str) -> list[str]:
    """The first sentences in lower case, without what they quote and the last mark of each."""
    plain = text[:LENGTH_READ].strip().lower()
    if "’" in plain:
        plain = plain.replace("’", "'")
    if '"' in plain or "“" in plain:
        plain = _QUOTATION.sub(" quoted ", plain)
    lines = plain.replace("\n\n", "\n").replace("\n", ". ")
    parts = _SENTENCE_END.split(lines, SENTENCES_READ)
    return parts[:SENTENCES_READ]
