"""How an agent puts its need into a query, and puts it otherwise when that did not help."""

import random
from collections.abc import Callable, Sequence

from simulation.agents.lexical import content_words, stem

Rewording = Callable[[str, random.Random], str]

MOST_KEYWORDS = 8
HINTS = 1
QUESTIONS = ("how do I", "what can be used to", "how to", "which one will", "help with")


def plain(need: str) -> str:
    """The need as a person would type it: without blanks that mask a word, without a full stop.

    >>> plain("___ the source into an AST node.")
    'the source into an AST node'
    """
    return " ".join(word for word in need.split() if any(map(str.isalnum, word))).rstrip(".?!")


def keywords(need: str, draw: random.Random) -> str:
    """Its content words, in order, some at most."""
    found = list(dict.fromkeys(content_words(need)))
    if len(found) > MOST_KEYWORDS:
        kept = sorted(draw.sample(range(len(found)), MOST_KEYWORDS))
        found = [found[index] for index in kept]
    return " ".join(found) or plain(need)


def question(need: str, draw: random.Random) -> str:
    """As a question, or what passes for one."""
    start = draw.choice(QUESTIONS)
    text = plain(need)
    return f"{start} {text[:1].lower()}{text[1:]}"


def beginning(need: str, draw: random.Random) -> str:
    """Its first words: a hurried query."""
    words = plain(need).split()
    return " ".join(words[: max(4, round(len(words) * draw.uniform(0.5, 0.8)))])


def ending(need: str, draw: random.Random) -> str:
    """Its last words: what it is about rather than what is to be done."""
    words = plain(need).split()
    return " ".join(words[-max(4, round(len(words) * draw.uniform(0.5, 0.8))) :])


FIRST: Sequence[tuple[float, Rewording]] = (
    (0.6, lambda need, draw: plain(need)),
    (0.1, keywords),
    (0.2, question),
    (0.1, beginning),
)
"""What a first query looks like, and how often: language models ask in sentences."""

LATER: Sequence[Rewording] = (keywords, question, beginning, ending)


def first_query(need: str, draw: random.Random) -> str:
    """What an agent types first."""
    chances = [chance for chance, _ in FIRST]
    (_, reword), *_ = draw.choices(FIRST, chances)
    return reword(need, draw)


def next_query(need: str, asked: Sequence[str], seen: Sequence[str], draw: random.Random) -> str:
    """Another query: the whole need if it was not tried, else other words and a hint.

    Args:
        need: in words.
        asked: queries so far.
        seen: snippets of hits that looked promising; their words are the hints.
        draw: decides between the ways.
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
