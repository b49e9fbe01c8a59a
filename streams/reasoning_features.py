"""What a reasoning says, as features of a linear model (``streams/local_judge.py``).

The first sentences are read one by one, and later ones that speak of a document. Words become
classes ("page" and "article" are both DOC, "doesn't" is NOT, a name is NAME), so that a thousand
labelled texts teach the model phrases with any noun and verb in them: *DOC NOT TELL*. Features are
runs of classes, ordered pairs of the telling ones, and the plain words. A sentence that plans the
next step or repeats the question is told apart by its first words; what it says is no verdict about
the document. What follows "but" or "however" is a feature of its own: a contrast leads to what
counts.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

LENGTH_READ = 4_000
SENTENCES_READ = 10
WORDS_READ = 40
DECAY = (1.0, 1.0, 0.8, 0.6, 0.5, 0.4)
"""Of a feature that holds wherever a sentence stands: agents speak of the document first."""

PLAN_DECAY = 0.3
LATER = 0.6

_CLASSES = {
    "DOC": "document doc docs documents page pages article articles text passage source content "
    "contents entry snippet site website paper file link piece section chunk portion part docid "
    "wiki wikipedia result abstract infobox description title leaflet readme material blog post "
    "biography pdf guideline statute report",
    "IT": "it this that these those they here there he she",
    "TELL": "mention contain include answer address discuss provide give cover say state specify "
    "list describe show reference refer talk indicate reveal explain identify name offer tell "
    "disclose note appear",
    "TELLS": "mentions contains includes answers addresses discusses provides gives says states "
    "specifies lists shows references refers talks indicates reveals explains identifies names "
    "offers tells reports notes mentioned stated listed described shown included including named",
    "HELP": "help helps",
    "MATCH": "match matches fit fits satisfies satisfied corresponds agrees consistent matching "
    "matched confirms confirmed confirm corroborates establishes",
    "MISM": "mismatch contradicts fails failed lacks missing lack fail silent stub truncated",
    "NOT": "not never hardly barely neither nor cannot",
    "NO": "no none nothing nope zero without",
    "BAD": "irrelevant unrelated off-topic useless unhelpful unproductive discard reject "
    "unavailable inaccessible blank empty error 404 paywall",
    "REL": "relevant helpful useful related pertinent applicable informative correct right "
    "promising same",
    "WRONG": "wrong incorrect namesake disambiguation redirect",
    "DIFF": "different another other else",
    "ONLY": "only just merely mostly mainly simply exclusively basically",
    "INFO": "info information detail details data clue clues evidence indication specifics",
    "WANT": "need needs want wants seek seeks require looking needed asks asked asking after",
    "FIND": "find found locate see seen saw got get have",
    "SEARCH": "search look query try check verify open retrieve fetch refine consult",
    "QUES": "question user task inquiry",
    "SO": "so thus therefore hence",
    "BUT": "but however yet though although while whereas still",
    "MAY": "maybe perhaps possibly could might likely probably seems seem may would should",
    "IS": "is are was were be been being am appears",
    "GOOD": "great good perfect excellent yes indeed bingo interesting finally",
    "GEN": "general generic overview",
    "KNOW": "know known learn learned learnt",
    "ABOUT": "about concerns concerning regarding on covers describes deals",
    "WE": "we i",
}
_CLASS = {word: name for name, words in _CLASSES.items() for word in reversed(words.split())}
_KEPT = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "in",
        "for",
        "to",
        "from",
        "with",
        "by",
        "and",
        "or",
        "as",
        "at",
        "if",
        "which",
        "who",
        "whose",
        "what",
        "when",
        "all",
        "any",
        "some",
        "more",
        "very",
        "really",
        "exactly",
        "directly",
        "enough",
        "now",
        "next",
        "again",
        "first",
        "let",
        "ok",
        "okay",
        "hmm",
        "wait",
        "actually",
        "unfortunately",
        "according",
        "answer",
        "final",
        "ours",
        "our",
        "us",
        "instead",
        "rather",
        "than",
        "even",
        "also",
        "does",
        "do",
        "did",
        "will",
        "can",
        "its",
    ]
)
_TELLING = frozenset(
    [
        "NOT",
        "NO",
        "DOC",
        "TELL",
        "TELLS",
        "BAD",
        "REL",
        "WRONG",
        "DIFF",
        "ONLY",
        "INFO",
        "WANT",
        "BUT",
        "SO",
        "GOOD",
        "QUES",
        "MATCH",
        "MISM",
        "ABOUT",
        "NUM",
        "NAME",
        "FIND",
        "HELP",
        "IT",
        "GEN",
        "KNOW",
    ]
)

_TOKEN = re.compile(r"[^\W\d_][\w'-]*|\d+|[✓.?!:;,()]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_QUOTATION = re.compile(r'["“][^"“”\n]{1,300}["”]')
_NEGATION = re.compile(r"(?:n't|(?<=[dst])nt)\b", re.I)
_CANNOT = re.compile(r"\bcan(?:'t|not)\b", re.I)
_IS = re.compile(r"\b(it|that|this|there|here|he|she|what)'s\b", re.I)
_SPEAKS_OF_IT = re.compile(
    r"\b(?:docu?ments?|docs?|page|article|text|passage|entry|site|website|file|link|pdf|profile"
    r"|opened|fetched|read|here|irrelevant|unrelated|useless|useful|helpful|relevant|404|403|error"
    r"|found|nothing|none|no mention)\b",
    re.I,
)
_PLAN = re.compile(
    r"(?:(?:so|thus|ok|okay|and|then|now),? )?(?:let's|let us|let me"
    r"|we (?:need|should|could|can|must|might|will|may)|i (?:need|should|could|will|must|'ll)"
    r"|next|search|maybe|perhaps|could be|might be|try|move|possibly|the question|question:)",
    re.I,
)


Zones = tuple[tuple[str, float], ...]
"""Where a feature counts, each with a factor."""

_FIRST: tuple[Zones, ...] = ((("", 1.0), ("A|", 1.0)), (("", 1.0), ("B|", 1.0)))
_LATER: Zones = (("", LATER), ("L|", LATER))
_PLANS: Zones = (("P|", PLAN_DECAY),)
_BY_NUMBER: tuple[Zones, ...] = (*_FIRST, *((("", decay),) for decay in DECAY[2:]))
ZONES = frozenset((*_BY_NUMBER, _LATER, _PLANS))


def features(text: str) -> dict[str, float]:
    """Feature to value; see :func:`read` for the zones."""
    found: dict[str, float] = {}
    for zones, grams in read(text):
        for zone, weight in zones:
            for gram in grams:
                found[zone + gram] = found.get(zone + gram, 0.0) + weight
    return found


def read(text: str) -> Iterator[tuple[Zones, set[str]]]:
    """Of each sentence read: the zones that it counts in, with their weights, and its features.

    ``A|`` and ``B|`` are the first and second sentence, ``P|`` plans, ``L|`` later sentences that
    speak of a document or of a failure to read it; no zone is anywhere but in a plan.
    """
    read_so_far = 0
    for number, sentence in enumerate(sentences(text)):
        plan = _PLAN.match(sentence) is not None
        later = number >= len(DECAY)
        if later and (plan or read_so_far == SENTENCES_READ or not _SPEAKS_OF_IT.search(sentence)):
            continue
        read_so_far += 1
        zones = _PLANS if plan else _LATER if later else _BY_NUMBER[number]
        yield zones, _grams(sentence)


def sentences(text: str) -> list[str]:
    """The sentences, without quotations and contractions."""
    plain = _QUOTATION.sub(" Quoted ", text[:LENGTH_READ].replace("’", "'"))
    plain = _IS.sub(r"\1 is", _NEGATION.sub(" not", _CANNOT.sub("can not", plain)))
    return [stripped for part in _SENTENCE.split(plain) if (stripped := part.strip())]


def _grams(sentence: str) -> set[str]:
    words = _TOKEN.findall(sentence[:600])[:WORDS_READ]
    classes = ["^"]
    for word in words:
        lower = word.lower()
        name = _CLASS.get(lower)
        if name is None:
            if lower in _KEPT or not (word[0].isalnum()):
                name = lower
            elif word[0].isdigit():
                name = "NUM"
            else:
                name = "NAME" if word[0].isupper() and len(classes) > 1 else "x"
            if name == classes[-1] and name in ("x", "NAME", "NUM"):
                continue
        classes.append(name)
    grams = set(classes)
    grams.update(map(" ".join, pairwise(classes)))
    grams.update(map(" ".join, zip(classes, classes[1:], classes[2:], strict=False)))
    telling = [name for name in classes if name in _TELLING][:14]
    for step in (1, 2, 3):
        grams.update(f"{a}>{b}" for a, b in zip(telling, telling[step:], strict=False))
    if "BUT" in classes:
        after = telling[telling.index("BUT") + 1 :]
        grams.update(f"but:{name}" for name in after)
        grams.update(f"but:{a}>{b}" for a, b in pairwise(after))
    grams.update("w:" + word.lower() for word in words[:30] if word[0].isalpha())
    return grams
