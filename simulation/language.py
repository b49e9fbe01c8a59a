"""The English of a scripted agent, without a language model: reading, queries and thoughts.

Reading counts the content words that two texts share. Queries are made of the words of a need. A
thought names the document, quotes it, states a verdict, and continues until it is long enough. Its
phrases are drawn at random and not fitted to any judge.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from schemas.events import count_tokens

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
    """Words that are not stop words: lower case, in order, with repeats."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOPWORDS]


def stem(word: str) -> str:
    """The word without a common English ending.

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
    """The passage of the text with most stems of the need, as on a result page."""
    wanted = set(need)
    return max(_stretches(text), key=lambda stretch: len(wanted & stretch.stems)).text


@dataclass(frozen=True, slots=True)
class _Stretch:
    text: str
    stems: frozenset[str]


@lru_cache(maxsize=50_000)
def _stretches(text: str) -> tuple[_Stretch, ...]:
    """Overlapping stretches of :data:`SNIPPET_WORDS` words; cached, because hits repeat."""
    words = text.split()
    starts = range(0, max(1, len(words) - SNIPPET_WORDS + 1), SNIPPET_WORDS // 3)
    parts = [" ".join(words[start : start + SNIPPET_WORDS]) for start in starts]
    return tuple(_Stretch(part, frozenset(stems(part))) for part in parts)


Rewording = Callable[[str, random.Random], str]

MOST_KEYWORDS = 8
HINTS = 1
QUESTIONS = ("how do I", "what can be used to", "how to", "which one will", "help with")


def plain(need: str) -> str:
    """The need without masked words and final mark.

    >>> plain("___ the source into an AST node.")
    'the source into an AST node'
    """
    return " ".join(word for word in need.split() if any(map(str.isalnum, word))).rstrip(".?!")


def keywords(need: str, draw: random.Random) -> str:
    """Up to :data:`MOST_KEYWORDS` of its content words, in order."""
    found = list(dict.fromkeys(content_words(need)))
    if len(found) > MOST_KEYWORDS:
        kept = sorted(draw.sample(range(len(found)), MOST_KEYWORDS))
        found = [found[index] for index in kept]
    return " ".join(found) or plain(need)


def question(need: str, draw: random.Random) -> str:
    """A question about the need."""
    start = draw.choice(QUESTIONS)
    text = plain(need)
    return f"{start} {text[:1].lower()}{text[1:]}"


def beginning(need: str, draw: random.Random) -> str:
    """Its first words."""
    words = plain(need).split()
    return " ".join(words[: max(4, round(len(words) * draw.uniform(0.5, 0.8)))])


def ending(need: str, draw: random.Random) -> str:
    """Its last words."""
    words = plain(need).split()
    return " ".join(words[-max(4, round(len(words) * draw.uniform(0.5, 0.8))) :])


FIRST: Sequence[tuple[float, Rewording]] = (
    (0.6, lambda need, draw: plain(need)),
    (0.1, keywords),
    (0.2, question),
    (0.1, beginning),
)
"""Forms of a first query and their probabilities: language models mostly use sentences."""

LATER: Sequence[Rewording] = (keywords, question, beginning, ending)


def first_query(need: str, draw: random.Random) -> str:
    """The first query of an agent."""
    chances = [chance for chance, _ in FIRST]
    (_, reword), *_ = draw.choices(FIRST, chances)
    return reword(need, draw)


def next_query(need: str, asked: Sequence[str], seen: Sequence[str], draw: random.Random) -> str:
    """A further query: the whole need if not yet asked, else other words and a hint.

    Args:
        need: in words.
        asked: queries so far.
        seen: snippets of promising hits; hints are words of them.
        draw: chooses the form.
    """
    whole = plain(need)
    if whole not in asked and draw.random() < 0.5:
        return whole
    known = {stem(word) for query in asked for word in content_words(query)}
    known |= {stem(word) for word in content_words(need)}
    new = list(
        dict.fromkeys(w for text in seen for w in content_words(text) if stem(w) not in known)
    )
    hints = draw.sample(new, min(HINTS, len(new)))
    return " ".join([draw.choice(LATER)(need, draw), *hints])


OPENINGS = (
    "Let me look at {doc}.",
    "I opened {doc}.",
    "{doc} came up for my query, so I read it in full.",
    "Reading {doc} now.",
    "Okay, {doc}: the text talks about {topic}.",
    "This one, {doc}, starts with {topic}.",
    "So {doc} is about {topic}.",
    "First lines of {doc}: {topic}.",
)

HELPS = (
    "This is exactly what I was looking for: {need}.",
    "It answers the question about {need}.",
    "That matches what is needed, namely {need}.",
    "It explains {need}, which is what I have to find out.",
    "Here the behaviour is spelled out, and it fits {need}.",
    "The description covers {need} well.",
    "I can use this: it is the one that deals with {need}.",
    "Good, this serves the purpose of {need}.",
    "The details line up with {need}, so this looks like the right place.",
    "This gives me what I need about {need}.",
)

HELPS_MORE = (
    "In particular the part on {topic} settles how it behaves.",
    "The passage on {topic} tells me which arguments matter.",
    "It goes on to {topic}, which I should keep in mind for the answer.",
    "Taken together with {topic}, the picture is complete.",
    "I note {topic} for the answer.",
    "It also says what happens around {topic}, and that fits the task.",
    "Compared with the other results, this one is the most specific, thanks to {topic}.",
    "The wording differs from my query, but {topic} means the same thing as {need}.",
    "I would quote the sentence about {topic} when I write this up.",
    "Step by step: first {topic}, and then what follows from it for {need}.",
    "The condition about {topic} is worth remembering, because it decides the edge cases.",
)

HELPS_NOT = (
    "This is not relevant to {need}.",
    "It does not answer the question about {need}.",
    "The text does not mention {need} at all.",
    "There is no information about {need} here.",
    "This is unrelated to {need}.",
    "That is off-topic: I need {need}.",
    "Wrong document, I was looking for {need}.",
    "It shares a few words with my query but is not about {need}.",
    "Nothing here helps with {need}.",
    "This does not help: I want {need}.",
    "It doesn't say anything about {need}.",
    "Not useful for {need}.",
)

HELPS_NOT_MORE = (
    "It is about {topic} instead.",
    "Only {topic} comes close, and that is another matter.",
    "I should try one of the other results.",
    "Perhaps the query has to be put differently.",
    "The overlap is in words like {topic} only.",
    "Moving on.",
    "It goes on about {topic}, which leads elsewhere.",
    "Somebody who wants {topic} would be happy with it, but I am not.",
)

PLANS = (
    "Nothing convincing yet; I will put {need} into other words.",
    "Let me search again, with other terms for {need}.",
    "The results so far are thin. Another query about {need} may do better.",
    "I should be more specific about {need}.",
)


def about_document(
    *, need: str, doc_id: str, text: str, helps: bool, tokens: int, draw: random.Random
) -> str:
    """A thought of at least ``tokens`` tokens (``schemas.events``) about a document.

    Args:
        need: the need in words.
        doc_id: appears in the text.
        text: of the document; the thought quotes phrases of it.
        helps: the verdict of the thought.
        tokens: minimum length; the sentence that exceeds it is complete.
        draw: chooses the phrases.
    """
    wanted = _short(need, draw)
    topic = _topics(text, draw)
    verdicts, more = (HELPS, HELPS_MORE) if helps else (HELPS_NOT, HELPS_NOT_MORE)
    sentences = [
        template.format(doc=doc_id, need=wanted, topic=topic())
        for template in (draw.choice(OPENINGS), draw.choice(verdicts))
    ]
    left = list(more)
    draw.shuffle(left)
    while left and count_tokens(" ".join(sentences)) < tokens:
        sentences.append(left.pop().format(need=wanted, topic=topic()))
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)


def plan(need: str, draw: random.Random) -> str:
    """A thought between two searches, about no document."""
    return draw.choice(PLANS).format(need=_short(need, draw))


def _short(need: str, draw: random.Random) -> str:
    words = need.split()
    if len(words) <= 8:
        return " ".join(words).rstrip(".")
    start = draw.randrange(0, len(words) - 7)
    return " ".join(words[start : start + 8]).strip(".,;:")


def _topics(text: str, draw: random.Random) -> Callable[[], str]:
    """Phrases of two to four content words that stand together in the text."""
    words = content_words(text) or ["it"]

    def phrase() -> str:
        length = draw.randint(2, 4)
        start = draw.randrange(max(1, len(words) - length + 1))
        return " ".join(words[start : start + length])

    return phrase
