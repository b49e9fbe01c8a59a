"""What a reasoning says, as features of a linear model (``streams/judge/local.py``).

The first sentences are read one by one. A closed list of telling words becomes classes ("page" and
"article" are both DOC, "doesn't" is NOT), all other words are left out between them, so that a few
thousand labelled texts teach the model phrases with any noun and verb in them: *DOC NOT TELL*.
Features are the plain words, the classes and neighbouring classes; a feature is there or not,
however often. They count once more in the first sentence, in the last one, and in sentences that
plan the next step or repeat the question: what those say is seldom a verdict on the document.

This runs once for every reasoning, so it is left to what loops in C: a regular expression a
sentence, dictionaries, sets, ``map`` and ``pairwise``.
"""

import re
from itertools import pairwise
from typing import NamedTuple

LENGTH_READ = 2_000
SENTENCES_READ = 24
WORDS_READ = 40
START = "^"

_CLASSES = {
    "DOC": "doc docs page pages article articles text passage source content contents snippet "
    "site website paper file link piece section chunk portion part docid wiki wikipedia result "
    "hit abstract infobox description title leaflet readme material blog post biography bio pdf "
    "guideline entry sentence paragraph chapter table footnote caption appendix annex note "
    "thread forum interview obituary review catalogue catalog register index letter manual "
    "guide handbook faq transcript newsletter editorial essay brochure directory yearbook "
    "database edition volume copy scan preface foreword minutes log changelog issue ticket "
    "observation output response document record notes",
    "IT": "it this that these those they here there he she it's that's there's here's he's "
    "she's one",
    "TELL": "contain include address discuss provide give cover say state specify list "
    "describe show refer talk indicate reveal explain identify offer tell disclose appear "
    "define elaborate present display enumerate outline supply furnish hold carry bring yield "
    "containing giving occur credit treat report go touch deal mention cite feature",
    "TELLS": "mentions contains includes addresses discusses provides gives says states "
    "specifies lists shows refers talks indicates reveals explains offers tells reports "
    "mentioned stated listed described shown included including cites defines elaborates "
    "presents displays discloses enumerates outlines supplies holds carries features brings "
    "yields documented recorded gave told said reported covered carried explained contained "
    "specified saying stating mentioning listing telling reads credits credited attributes "
    "attributed records quotes quoted spells documents printed given puts covers goes answers "
    "names",
    "HELP": "help helps helped",
    "MATCH": "match matches fit fits satisfies satisfied corresponds agrees consistent "
    "matching matched agree agreed fitting correspond compatible",
    "CONF": "confirms confirmed confirm corroborates establishes settles settled settle "
    "resolves resolved decides proves proved proof verifies verified supports supported support "
    "backs pins narrows narrowed clears solves solved closes closed identifies suffices suffice "
    "sufficient done clinches",
    "MISM": "mismatch contradicts contradict contradiction fails violates conflict conflicts "
    "differ differs disagree",
    "ABSENT": "missing absent lacking lacks lack omitted omits removed deleted dropped gone "
    "withheld unlisted unnamed unmentioned unstated unspecified undated silent left stays void "
    "excluded merged leaves",
    "ENDS": "ends end ended stops stop stopped breaks cut cuts truncated begins begin starts "
    "start predates before until later earlier",
    "CANNOT": "cannot can't couldn't couldnt cant unable impossible hardly hard",
    "NOT": "not never barely neither nor don't doesn't didn't isn't aren't wasn't weren't "
    "hasn't haven't hadn't wouldn't shouldn't won't doesnt didnt isnt dont nowhere",
    "NO": "no none nothing nope zero without nobody",
    "BAD": "irrelevant unrelated useless unhelpful unproductive worthless pointless "
    "tangential misleading detour waste noise unusable",
    "EMPTY": "empty blank stub placeholder boilerplate navigation ads adverts advert ad "
    "advertisement spam cookie cookies banner login paywall paywalled footer menu homepage "
    "sitemap filler satire parking shop merch advertising promotional",
    "FAIL": "error errors timeout failed fail dead broken expired unreadable garbled "
    "forbidden denied certificate inaccessible unavailable corrupted refused redirected "
    "redirects redirect javascript captcha",
    "DROP": "skip drop discard discarded ignore dismiss reject rejected forget abandon "
    "leaving pass disregard exclude cross bin dropping skipping leave",
    "KEEP": "keep accept use used using take takes taking noted build rely usable",
    "REL": "relevant helpful useful related pertinent applicable informative correct right "
    "promising same valuable suitable conclusive",
    "WRONG": "wrong incorrect namesake homonym disambiguation unlike coincidence misled "
    "fooled confused confuses mistaken mistake outdated obsolete old older elsewhere",
    "DIFF": "different another other else others altogether",
    "OURS": "ours our mine my",
    "ONLY": "only just merely mostly mainly simply exclusively basically purely all",
    "EXACT": "exactly precisely indeed exact precise very",
    "INFO": "info information data clue clues evidence indication specifics date year years "
    "name fact facts figure figures number numbers reference references hint hints trace sign "
    "detail word value values answer dates details",
    "WANT": "need needs want wants seek seeks require looking needed asks asked asking wanted "
    "required hoped hoping hope expecting looked search wish sought interested supposed after "
    "expected",
    "FIND": "find found locate see seen saw got get have has had finding",
    "SEARCH": "look query try check verify retrieve fetch refine consult lookup reformulate "
    "rephrase retry searching trying open",
    "QUES": "question user task inquiry puzzle client request quiz problem",
    "SO": "so thus therefore hence consequently then",
    "BUT": "but however yet though although while whereas despite nevertheless",
    "STILL": "still remains remain remaining unanswered unknown unclear unsolved pending",
    "MAY": "maybe perhaps possibly could might likely probably seems seem may would should "
    "presumably apparently seemingly appears",
    "IS": "is are was were be been being am",
    "GOOD": "great good perfect excellent yes bingo interesting finally nice yep yeah success "
    "luckily fortunately glad happy pleased ideal",
    "SAD": "unfortunately sadly alas pity sorry frustrating disappointing disappointed afraid "
    "hmm hm shame regrettably",
    "GEN": "general generic overview introduction introductory broad background vague superficial",
    "KNOW": "know known learn learned learnt",
    "ABOUT": "about concerns concerning regarding on deals treats devoted describes dealing",
    "WE": "we i we've we're we'd we'll i've i'm i'd i'll me us",
    "LET": "let let's",
    "NUM": "0 1 2 3 4 5 6 7 8 9",
    "FURTHER": "further closer nearer forward anywhere ahead",
    "BACK": "back again next move return going",
    "BORN": "born died buried married baptised built founded opened launched wrote directed "
    "sold won signed moved named called invented designed composed published sunk elected "
    "appointed killed served worked lived studied released introduced completed established "
    "received became led joined owned",
    "NAMEP": "architect director author founder composer engineer inventor designer owner "
    "builder bishop captain minister painter sculptor teacher successor widow brother sister "
    "father son daughter wife husband mother",
    "YESM": "✅ ✓ ✔",
    "NOM": "❌ ✗ ✘",
    "ARROW": "→ ⇒ =",
}
_THEMSELVES = (
    "the a an of in for to from with by and or as at if which who whose what when any some more "
    "really directly enough now first last ok okay wait actually according final instead rather "
    "than even also does do did will can its too already once far out off up away both : ; , ( | "
    "?"
)
CLASS = {word: name for name, words in _CLASSES.items() for word in words.split()} | {
    word: word for word in _THEMSELVES.split()
}
"""Word, in lower case, to its class; a word that is in no class is left out of the pairs."""

# Of a number only the last digit is taken, which is enough to say that one stands there. Letters
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

Feature = str | tuple[str, str]
"""A word, a class, or two neighbouring classes."""

ZONES = ("", "A|", "E|", "P|")
"""Prefixes of a feature's name: anywhere, in the first sentence, in the last one, in a plan."""


class Reading(NamedTuple):
    """The features of a text by zone, in the order of :data:`ZONES`; words only in the first."""

    anywhere: set[Feature]
    first: set[Feature]
    last: set[Feature]
    plans: set[Feature]


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


def features(text: str) -> set[str]:
    """The features by name: a pair of classes has a space between them, before it is its zone."""
    return {
        zone + (feature if isinstance(feature, str) else " ".join(feature))
        for zone, found in zip(ZONES, read(plain_text(text)), strict=True)
        for feature in found
    }


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
