"""What a scripted agent writes down after reading a document: English that a judge can judge.

A thought opens, quotes what it looked at, comes to a verdict and goes on until it is long enough.
The phrases are drawn, so that no two thoughts need be alike; nothing here knows a judge.
"""

import random
from collections.abc import Callable, Sequence

from schemas.events import count_tokens
from simulation.agents.lexical import content_words

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
        need: what the agent is after, in words.
        doc_id: as it names the document.
        text: of the document; phrases of it are quoted.
        helps: the verdict that the thought comes to.
        tokens: about how long it becomes.
        draw: decides the phrases.
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


def phrases() -> Sequence[str]:
    """All templates, for whoever wants to know that a judge understands them."""
    return (*HELPS, *HELPS_MORE, *HELPS_NOT, *HELPS_NOT_MORE, *PLANS)
