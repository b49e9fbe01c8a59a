"""The judge that needs no server: lexical rules over the reasoning that follows a browse.

A document counts as irrelevant only if the agent says so; going on searching does not mean that it
did not help. The text is cut into sentences and these into clauses; each clause is looked up in the
tables below, the clause that a contrast leads to outweighs the one it leads away from, and what
comes first weighs most, because agents speak of the document first and muse afterwards.
"""

import re
from itertools import islice
from typing import NamedTuple

from schemas.events import Verdict

VERSION = "3"

_LENGTH_READ = 6_000
_WEIGHTS = (1.0, 1.0, 0.8, 0.5, 0.4, 0.3)
"""Of the first sentences; no more are read."""

_IRRELEVANT_FROM = 0.75
_CONCEDED = 0.25
"""What the conceded side of a contrast ("although …", "…, but") still weighs."""


class Cue(NamedTuple):
    """A pattern over lower-case text without contractions; negative weights speak against."""

    weight: float
    pattern: str


_DOC = (
    r"(?:document|doc|page|article|text|passage|result|source|content|entry|snippet|site|website"
    r"|paper|file|link|piece|section|material|chunk|hit|post|report|book|wiki\w*)s?"
)
_ADVERB = (
    r"(?:\s+(?:directly|explicitly|specifically|actually|really|even|clearly|seem to|appear to"
    r"|contain or|to|at all|quite|very|particularly|especially|exactly|necessarily|itself|also"
    r"|further|much|any|yet|be|the|that|all that|so|immediately|obviously|currently|fully))*"
)
_TELL = (
    r"(?:mention|contain|includ|answer|address|discuss|provid|giv|help|cover|say|stat|specif|list"
    r"|describ|show|referenc|refer|talk|indicat|reveal|explain|match|fit|confirm|support|tell|hold"
    r"|relat|pertain|concern|offer|identif|name|touch|shed|have|satisf|correspond|meet)\w*"
)
_NOT = r"(?:not|never|hardly|barely|neither|nor)"
_SUBJECT = (
    rf"(?:^|\b(?:it|this|that|which|these|those|they|{_DOC}|here|and|also|doc \w+|\d+)\b"
    rf"(?:\s+(?:here|above|just|only|still|itself|\w+))?)\s*"
)

_AGAINST = (
    # What the document is not.
    Cue(2.0, r"\b(?:irrelevant|unrelated|off[- ]topic|useless|unhelpful|beside the point)\b"),
    Cue(
        2.0,
        rf"\b{_NOT}{_ADVERB}\s+(?:relevant|helpful|useful|related|pertinent|applicable|informative"
        r"|on[- ]topic|of (?:any )?(?:use|help|interest)|worth\w*)\b",
    ),
    Cue(2.0, r"\b(?:no|little|without|limited) (?:\w+ )?(?:use|help|relevance|relation|value)\b"),
    Cue(2.0, r"\b(?:dead[- ]?end|waste of time|no luck|does no good|not any good)\b"),
    Cue(2.0, rf"\bnot{_ADVERB}\s+what (?:we|i|the (?:user|question|task))\b"),
    Cue(2.0, r"\bnot (?:the|our) (?:right|correct|one|same|person|target|intended|desired)\b"),
    Cue(2.0, rf"\bincorrect (?:\w+ )?(?:{_DOC}|person|one|entity)\b"),
    Cue(2.0, r"\bwrong (?!answers?\b|with\b|way\b)\w+\b(?! (?:was|were|had|is said|trousers))"),
    Cue(
        2.0,
        r"\b(?:another|a (?:totally |completely |very |entirely )?different|some other"
        r"|an unrelated) (?!source|search|query|document|page|article|approach|angle|possib|way"
        r"|phrase|keyword|term|one\b|hit|result|name|spelling|wording|look|clue|option|candidate"
        r"|piece|example|detail|fact|reference|tack|strategy|route|idea|issue|step|thing to)\w+",
    ),
    Cue(1.5, r"\b(?:something|someone|somebody|somewhere) (?:else|different)\b"),
    Cue(1.5, r"\bnothing\b(?! else| more| wrong| new to add| to worry)"),
    Cue(1.5, r"\b(?:not|no) (?:a |an )?(?:good |real |exact |perfect )?match\b"),
    Cue(1.5, r"\bnot (?:about|matching|it|this one|that one|him|her|them)\b"),
    Cue(1.5, r"\babout\b.{1,60}?,? (?:not|rather than|instead of)\b"),
    Cue(
        1.5,
        r"\b(?:it|this|that) is\b.{1,60}?(?:,? (?:and )?not the|rather than|instead of)\b"
        r"|\b(?:with|of|bearing|having|shar\w+) the same (?:sur|first )?name\b",
    ),
    Cue(
        1.5,
        r"\bnot (?:the|a|an) (?:\w+ ){1,3}(?:that )?(?:we|i|in question|from the question)\b"
        r"|(?<!what i )(?<!what we )\b(?:was|were|had been|am) (?:hoping|looking|expecting)"
        r" (?:for|to find)\b",
    ),
    Cue(
        1.5,
        r"\b(?:while|whereas|and|but) (?:the|our|my) (?:question|query|task|user) (?:\w+ )?"
        r"(?:is|concerns?|asks?|deals?|wants?|needs?|is looking|talks|refers)\b",
    ),
    Cue(
        1.0,
        r"\b(?:is|are|gives?|contains?|has|lists?|shows?)"
        r" (?:only|just|merely|simply|mostly|mainly)\b",
    ),
    Cue(
        1.5,
        r"\bnot (?:think|believe|feel|see how|guess) (?:that )?(?:this|it|that|the \w+) "
        r"(?:is|are|was|helps?|matters?|will|would|answers?|match\w*|has|gives?|contains?)\b",
    ),
    Cue(1.5, r"^not (?:on|about|of|for|in|from|with|the one) "),
    Cue(1.5, r"\b(?:cannot|not) (?:find|finding|seeing|locate|locating|able to find)\b"),
    Cue(1.5, r"\bcannot be (?:the|our|him|her|it|this|that)\b|\bnot (?:\w+ly )?(?:fit|match)\b"),
    Cue(1.0, r"^(?:so|hence|thus),? (?:no|not)\W*$"),
    Cue(1.5, r"\bnot our\b|\b(?:completely|totally|way|entirely|far) off\b"),
    Cue(1.0, r"\bours (?:is|was|are|stands|lies|has|died|lived)\b|^unfortunately,? (?:no|not)\b"),
    Cue(1.0, r"^(?:only|just|merely) (?:a|an|the|some)\b|^nope\b"),
    Cue(1.5, r"\bnot the \w+ one\b|^(?:a |an )?different \w+\W*$"),
    Cue(1.5, r"\b(?:seems?|looks?|appears?|is|was) (?:to be )?(?:the )?wrong\b"),
    Cue(1.0, r"^(?:(?:hmm+|oh|ah|ok)\W+)?(?:no|nope|not really|not quite|sadly|nah)\W*$"),
    # What it does not say.
    Cue(1.5, rf"^.{{0,12}}\b{_DOC}\b.{{0,50}}\b(?:does|do|did) not{_ADVERB}\s+{_TELL}\b"),
    Cue(1.5, rf"\b(?:does|do|did|will|would) not{_ADVERB}\s+help\b"),
    Cue(1.5, rf"{_SUBJECT}(?:do|does|did|will|would|can|could) {_NOT}{_ADVERB}\s+{_TELL}\b"),
    Cue(1.5, rf"{_SUBJECT}(?:lack|fail|omit|miss)\w*\b"),
    Cue(
        1.5,
        r"\b(?:no|not any|without any|zero|lacks? any) (?:\w+ ){0,3}?(?:information"
        r"|mention|details?"
        r"|data|references?|answers?|clues?|evidence|content|indication|discussion|info|facts?"
        r"|sign|trace|connection|link|relation\w*|match\w*|specifics?|text|luck)\b",
    ),
    Cue(1.5, r"\bnone of (?:this|that|these|it|them|which|whom|the (?:\w+ )?\w+)\b"),
    Cue(1.5, rf"\bneither (?:{_DOC}|of (?:them|these|the two))\b"),
    Cue(1.5, r"\bnot (?:see|find|spot|notice|get|offer|present) (?:any|anything|much|a single)\b"),
    Cue(
        1.0,
        r"\b(?:only|just|merely|mostly|mainly|simply) (?:\w+ )?(?:mention|talk|discuss|cover"
        r"|list|describ|refer|touch|about|deal|giv|say|repeat)\w*",
    ),
    Cue(1.0, r"\btoo (?:general|vague|broad|generic|short|old|brief|superficial)\b"),
    Cue(1.0, r"\b(?:insufficient|inconclusive|not (?:\w+ )?(?:enough|sufficient))\b"),
    # It could not be read.
    Cue(
        2.5,
        r"\b(?:could not|cannot|can not|unable to|failed to|fails to|did not|does not|would not"
        r"|will not|not able to) (?:be )?(?:open|load|access|fetch|retriev|reach|download|display"
        r"|render|view|visit|get (?:to )?the (?:page|document|content))\w*",
    ),
    Cue(
        2.5,
        r"\b(?:http|status|error|code)(?: code)?[ :]*[45]\d\d\b|\((?:40[0134]|50[0234])\)"
        r"|\b(?:40[0134]|50[0234])\W+(?:error|not found|forbidden|unauthori[sz]ed|bad gateway)",
    ),
    Cue(
        2.5, r"\b(?:page|document|doc|file|url|link|article|site|docid)\b.{0,20}\bnot (?:be )?found"
    ),
    Cue(
        2.5,
        rf"\b(?:empty|blank|broken|dead|truncated to nothing) (?:\w+ )?(?:{_DOC}|response|output"
        r"|string|url)\b",
    ),
    Cue(
        2.5,
        rf"\b{_DOC} (?:\w+ )?(?:is|was|came back|comes back|seems|appears|returned) "
        r"(?:to be )?(?:\w+ )?(?:empty|blank|broken|dead|unavailable|inaccessible|missing|gone"
        r"|down|behind|an? (?:\w+ )?error)\b",
    ),
    Cue(
        2.5,
        r"\b(?:access (?:was |is )?denied|forbidden|paywall\w*|captcha|timed out|time-?out"
        r"|dead link|broken link|(?:because of|due to) an? (?:\w+ )?error"
        r"|error (?:loading|opening|fetching|page|message)|inaccessible"
        r"|not accessible|(?:not|no longer) available|unavailable|^not found"
        r"|(?:was|been|is) (?:removed|deleted|taken down)|returned (?:nothing|an error|no content)"
        r"|failed to (?:load|open|fetch)|got (?:an error|nothing))\b",
    ),
)

_HINT = re.compile(
    r"\b(?:we (?:need|want|seek|are|were|require)|ours"
    r"|no|not|nor|never|neither|hardly|barely|none|nothing|cannot|without|zero|little|limited"
    r"|un\w+|in\w+|ir\w+|use\w+|off|beside|due|because|dead|waste|wrong|another|different|other|some\w+|lack\w*"
    r"|fail\w*|omit\w*|miss\w*|only|just|merely|mostly|mainly|simply|too|while|whereas|rather|same|about|hoping|looking"
    r"|expecting|question|query|task|user|40\d|50\d|empty|blank"
    r"|broken|trunc\w+|down|gone|behind|access|forbidden|pay\w+|captcha|time\w*|error)\b"
)
"""A word of every pattern above."""

_FOR = (
    Cue(
        1.0,
        r"^(?:so|thus|therefore|hence),? (?:the|we|i|this|that|it|he|she|they|there|yes|likely)\b"
        r"(?!.{0,120}\b(?:is|was|are) about\b)",
    ),
    Cue(
        1.0,
        rf"\b(?:{_DOC}|it|this|that|they|which|wikipedia)\s+(?:\w+ly |also |does |do |did "
        r"|indeed |even |now |at least )*(?:says?|said|states?|mentions?|mention|confirms?"
        r"|provides?"
        r"|gives?|lists?|shows?|describes?|contains?|includes?|explains?|answers?|notes?"
        r"|indicates?|reveals?|tells?|details?|matches|match|fits?|supports?|verifies|verify"
        r"|names?|identifies|satisfies|corresponds|proves?|establishes|clarifies|helps?)\b",
    ),
    Cue(
        2.0,
        r"^(?:ok[,]? )?(?:great|excellent|perfect|good|nice|bingo|yes|indeed|wonderful|found"
        r"|exactly|awesome|fantastic|eureka|jackpot)\b(?! luck| question| idea)",
    ),
    Cue(
        1.5,
        r"\b(?:we|i) (?:now )?(?:have|found|find|know|learn|got|see|get|can (?:see|infer|confirm"
        r"|answer|conclude)|obtained|identified|confirmed)\b(?! (?:to|no\b|not|nothing|only"
        r"|that this"
        r"|that the (?:document|page|article)|an error|an empty|a (?:wrong|different)))",
    ),
    Cue(1.5, r"\baccording to\b"),
    Cue(1.5, r"\b(?:answer|solution) (?:is|appears|seems|would|must|should|could be)\b"),
    Cue(1.0, r"\b(?:so|thus|therefore|hence)[, ]+(?:the )?(?:final )?answer\b"),
    Cue(
        1.5,
        r"\b(?:is|was|are|very|quite|really|highly|extremely|looks|seems|somewhat|partially"
        r"|partly) (?:relevant|useful|helpful|informative|promising|on[- ]topic|related)\b",
    ),
    Cue(
        1.5,
        r"\b(?:key|useful|helpful|relevant|crucial|important|valuable|good|some|enough|direct"
        r"|strong|clear|partial) (?:\w+ )?(?:information|clues?|facts?|evidence|details?|context"
        r"|info"
        r"|hints?|confirmation|background|data|leads?|piece|answer|match)\b",
    ),
    Cue(
        1.0,
        r"\b(?:confirms?|confirmed|matches|consistent with|exactly what|narrows?|gives us"
        r"|tells us|as expected|helps|partial\w*|at least)\b",
    ),
)

_QUOTES = ((re.compile("[’‘`´]"), "'"), (re.compile("[“”«»]"), '"'))
_CONTRACTIONS = (
    (re.compile(r"\bcan't\b|\bcan not\b|\bcant\b"), "cannot"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(we|they|you)'re\b"), r"\1 are"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\b(do|does|did|is|could|was)nt\b"), r"\1 not"),
    (re.compile(r"\b(it|that|this|there|he|she|what|here)'s\b"), r"\1 is"),
)
_QUOTE = re.compile(r'"[^"\n]{1,400}"')
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|(?<=[a-z]\.)(?=[A-Z])")
_CONTRAST = re.compile(
    r"[;,—–]?\s*\b(?:but|however|yet|still|nevertheless|nonetheless)\b,?\s*|;\s*"
)
_CONCESSION = re.compile(
    r"^(?:and |so |ok,? )?(?:although|though|even though|while|whilst|despite|even if)\b"
    r"([^,]*),\s*(.*)$"
)
_TRAILING = re.compile(r"^(.*?),?\s+(?:although|though|even though|albeit|despite)\b\s*(.*)$")
_NEEDS_OTHER = re.compile(
    r"\bwe (?:need|want|seek|(?:are|were) (?:looking for|after)|require) (?:the|a|an) "
    r".{0,30}?\b(?:one|original|instead|not the)\b"
)
_ASKS_OTHERWISE = re.compile(
    r"\s*(?:while |whereas |but )?(?:the|our) (?:question|query|task|user)\b.{0,20}\b(?:is|are|was"
    r"|concerns?|asks?|deals?|wants?|needs?|refers?|says)\b"
)
_OTHER_MATTER = re.compile(
    r"^(?:so |thus |hence |ok,? |and |then )?(?:maybe|perhaps|let us|let's|let me"
    r"|we (?:need|should|could|can|must|might|will)(?! not)(?! (?:infer|see|conclude|deduce|use))"
    r"|i (?:need|should|will|am going)(?! not)|next|now (?:search|let)|search|try|could be"
    r"|might be|what if|the (?:question|user|query|task)|question|so we need|need to)\b"
)


def _compile(cues: tuple[Cue, ...]) -> tuple[tuple[float, re.Pattern[str]], ...]:
    return tuple((cue.weight, re.compile(cue.pattern)) for cue in cues)


_AGAINST_COMPILED = _compile(_AGAINST)
_FOR_COMPILED = _compile(_FOR)


class LocalJudge:
    """Relevant, unless the text says clearly that the document did not help."""

    name = "local"
    version = VERSION

    async def judge(self, text: str) -> Verdict:
        """The verdict of the rules; unknown for a text of white space."""
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
    return "irrelevant" if balance(text) <= -_IRRELEVANT_FROM else "relevant"


def balance(text: str) -> float:
    """What speaks for the document, minus what speaks against it; 0 if nothing is against it."""
    read = sentences(text)
    if not any(_hints(sentence) for sentence in read):
        return 0.0
    return sum(w * _of_sentence(sentence) for w, sentence in zip(_WEIGHTS, read, strict=False))


def sentences(text: str) -> list[str]:
    """The first lower-case sentences, without quotations and contractions."""
    plain = text[:_LENGTH_READ]
    for pattern, replacement in _QUOTES:
        plain = pattern.sub(replacement, plain)
    parts = (part.strip() for part in _SENTENCE.split(_QUOTE.sub(" quote ", plain)))
    read = "\n".join(islice(filter(None, parts), len(_WEIGHTS))).lower()
    for pattern, replacement in _CONTRACTIONS:
        read = pattern.sub(replacement, read)
    return [" ".join(sentence.split()) for sentence in read.split("\n")]


def _hints(clause: str) -> bool:
    """Whether a clause may hold a cue against the document; much quicker than all the cues."""
    return _HINT.search(clause) is not None


def _of_sentence(sentence: str) -> float:
    """The clause that a contrast leads to counts in full, the conceded one a little."""
    first, *others = sentence.split(";")
    return _of_contrast(first) + sum(
        -1.5 if _ASKS_OTHERWISE.match(part) else _of_contrast(part) for part in others
    )


def _of_contrast(part: str) -> float:
    concession = _CONCESSION.match(part)
    if concession:
        return _CONCEDED * _of_clause(concession[1]) + _of_clause(concession[2])
    trailing = _TRAILING.match(part)
    if trailing:
        return _of_clause(trailing[1]) + _CONCEDED * _of_clause(trailing[2])
    clauses = [clause for clause in _CONTRAST.split(part) if clause]
    if len(clauses) < 2:
        return _of_clause(part)
    return _outweighed(" , ".join(clauses[:-1]), clauses[-1])


def _outweighed(conceded: str, asserted: str) -> float:
    """Of "…, but …": the first part counts in full if the second says nothing either way."""
    last = _of_clause(asserted)
    return last + (_CONCEDED if last else 1.0) * _of_clause(conceded)


def _of_clause(clause: str) -> float:
    """The strongest cue decides; one against the document outweighs an equal one for it."""
    clause = clause.strip()
    if _OTHER_MATTER.match(clause):
        return -1.0 if _NEEDS_OTHER.search(clause) else 0.0
    if _hints(clause):
        against = (w for w, pattern in _AGAINST_COMPILED if pattern.search(clause))
        if strongest := max(against, default=0.0):
            return -strongest
    return max((w for w, pattern in _FOR_COMPILED if pattern.search(clause)), default=0.0)
