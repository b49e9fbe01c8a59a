"""Scripted search agents, without a language model, that leave realistic trajectories.

An agent has a need and a search function. It searches, reads the snippets, opens the hits that look
best, writes a thought about each, rewords its query if nothing helped, and answers. The hits alone
decide what it opens. Whether a document serves the need decides the verdict, with errors at fixed
rates, and the length of the thought whatever the verdict, which makes length a signal (LRAT,
section 4).

Every decision has its own seed (:func:`draw`) and does not depend on earlier draws, so different
retrievers are measured with equal agents.
"""

import hashlib
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

from simulation import language
from simulation.corpus import Need
from simulation.language import overlap, snippet, stems

MOST_SEARCHES = 4
HITS = 10
BROWSES = {1: 0.3, 2: 0.4, 3: 0.3}
"""Maximum number of hits opened after a search, and its probability."""

OVERLOOKS = 0.12
"""Probability that a document that serves the need is rejected."""

IS_FOOLED = 0.02
"""Probability that a document that does not serve the need is accepted."""

READS_ON = 0.25
"""Probability that an agent opens another hit after one that it accepted."""

PLANS_ALOUD = 0.3
"""Probability of a thought between two searches."""

SERVES_TOKENS, SERVES_NOT_TOKENS = 75, 35
"""Median length of a thought about a document that serves the need, and about another one."""

SPREAD = 0.45
"""Standard deviation of the logarithm of a thought's length."""

AGENT_NAME = "scripted"


@dataclass(frozen=True, slots=True)
class Persona:
    """A kind of agent: ``model`` is what it publishes, ``verbosity`` scales its language."""

    model: str
    verbosity: float


PERSONAS = (
    Persona("scripted-terse", 0.6),
    Persona("scripted-steady", 1.0),
    Persona("scripted-wordy", 1.7),
)


class Hit(Protocol):
    """A search result."""

    @property
    def doc_id(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """The agent searches; the caller sends the hits into the generator."""

    query: str


@dataclass(frozen=True, slots=True)
class Browsed:
    """The agent opened a document."""

    doc_id: str


@dataclass(frozen=True, slots=True)
class Thought:
    """The agent wrote a thought, about the document that it opened just before, if any.

    Attributes:
        helps: its verdict on the document. It is not published; only the text is.
    """

    text: str
    helps: bool | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The agent answered."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The trajectory ended with a correct or an incorrect answer."""

    outcome: Literal["correct", "incorrect"]


Step = Asked | Browsed | Thought | Answered | Ended
Agent = Generator[Step, Sequence[Hit], None]
"""A running agent: yields its steps, and receives the hits of an :class:`Asked` in rank order."""


@dataclass(frozen=True, slots=True)
class Mind:
    """The seed and the persona of an agent.

    Attributes:
        seed: parts of the seed, such as (seed, turn, need id).
        persona: its model name and verbosity.
    """

    seed: tuple[object, ...]
    persona: Persona

    @classmethod
    def of(cls, *seed: object) -> "Mind":
        """A mind with this seed, which also draws its persona."""
        return cls(seed, draw(*seed, "persona").choice(PERSONAS))

    @property
    def trajectory_id(self) -> str:
        """The id of its trajectory, a digest of the seed."""
        return digest(*self.seed, "trajectory")

    def draw(self, *what: object) -> Random:
        """A generator for one decision."""
        return draw(*self.seed, *what)


def act(need: Need, mind: Mind) -> Agent:
    """The steps of an agent; the last one is :class:`Ended`."""
    wanted = stems(need.text)
    asked: list[str] = []
    promising: list[str] = []
    opened: set[str] = set()
    believed: list[Hit] = []
    while not believed and len(asked) < MOST_SEARCHES:
        if asked and mind.draw("plan", len(asked)).random() < PLANS_ALOUD:
            yield Thought(
                language.plan(language.plain(need.text), mind.draw("planned", len(asked)))
            )
        asked.append(_query(need, asked, promising, mind))
        hits = yield Asked(asked[-1])
        candidates = worth_opening(wanted, hits, opened, mind.draw("open", len(asked)))
        promising = [snippet(wanted, hit.text) for hit in candidates]
        for hit in candidates:
            opened.add(hit.doc_id)
            yield Browsed(hit.doc_id)
            thought = _think(need, hit, mind)
            yield thought
            if thought.helps:
                believed.append(hit)
            if believed and mind.draw("read on", hit.doc_id).random() >= READS_ON:
                break
    yield from _conclude(need, wanted, believed)


def worth_opening(
    wanted: set[str], hits: Sequence[Hit], opened: set[str], draw: Random
) -> list[Hit]:
    """The hits to open, best first, by shared words in the snippet, rank and noise."""
    (most,) = draw.choices(list(BROWSES), list(BROWSES.values()))
    looks = {
        hit.doc_id: overlap(wanted, snippet(wanted, hit.text))
        + 1.0 / (2 + hit.rank)
        + draw.gauss(0.0, 0.05)
        for hit in hits
    }
    fresh = [hit for hit in hits if hit.doc_id not in opened]
    return sorted(fresh, key=lambda hit: (-looks[hit.doc_id], hit.rank))[:most]


def _query(need: Need, asked: Sequence[str], promising: Sequence[str], mind: Mind) -> str:
    draw = mind.draw("query", len(asked))
    if not asked:
        return language.first_query(need.text, draw)
    return language.next_query(need.text, asked, promising, draw)


def _think(need: Need, hit: Hit, mind: Mind) -> Thought:
    draw = mind.draw("think", hit.doc_id)
    serves = hit.doc_id in need.relevant
    helps = serves != (draw.random() < (OVERLOOKS if serves else IS_FOOLED))
    median = SERVES_TOKENS if serves else SERVES_NOT_TOKENS
    tokens = round(median * mind.persona.verbosity * draw.lognormvariate(0.0, SPREAD))
    text = language.about_document(
        need=language.plain(need.text),
        doc_id=hit.doc_id,
        text=hit.text,
        helps=helps,
        tokens=tokens,
        draw=draw,
    )
    return Thought(text, helps)


def _conclude(need: Need, wanted: set[str], believed: Sequence[Hit]) -> Agent:
    if not believed:
        yield Answered("I could not find it.")
        yield Ended("incorrect")
        return
    best = max(believed, key=lambda hit: (overlap(wanted, hit.text), -hit.rank))
    yield Answered(f"See {best.doc_id}: {snippet(wanted, best.text)}")
    yield Ended("correct" if best.doc_id in need.relevant else "incorrect")


def draw(*what: object) -> random.Random:
    """A generator whose seed is the parts; threads, order and earlier draws do not affect it.

    >>> draw(7, "need", 3).random() == draw(7, "need", 3).random()
    True
    """
    return random.Random(digest(*what))


def digest(*what: object) -> str:
    """A digest of the parts: 32 hex digits."""
    return hashlib.sha256("\x1f".join(map(str, what)).encode()).hexdigest()[:32]
