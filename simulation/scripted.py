"""Scripted search agents: no language model, and yet trajectories as agents leave them behind.

An agent has a need and a search function. It searches, looks at the snippets, opens the hits that
look best, writes down what it thinks of each, puts its need otherwise if nothing helped, and
answers at last. What it opens depends on what it sees alone. What it thinks of a document depends
on whether the document serves the need, but it is sometimes wrong; how long it thinks depends on
that too, whatever it comes to believe, which is what makes length a signal (LRAT, section 4).

Every draw is seeded by what it decides (:func:`draw`), not by what was drawn
before: two retrievers meet an agent of the same mind, and a difference in success is theirs.
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
"""How many hits of one search are opened, at most, and how often."""

OVERLOOKS = 0.12
"""How often a document that serves the need is taken for one that does not."""

IS_FOOLED = 0.02
"""How often a document that does not serve the need is taken for one that does."""

READS_ON = 0.25
"""How often an agent that found what it wanted opens the next hit all the same."""

PLANS_ALOUD = 0.3
"""How often an agent writes a thought down between two searches."""

SERVES_TOKENS, SERVES_NOT_TOKENS = 75, 35
"""Median length of a thought about a document that serves the need, and one that does not."""

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
    """What an agent sees of a result."""

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
    """The agent searches; whoever runs it sends the hits back."""

    query: str


@dataclass(frozen=True, slots=True)
class Browsed:
    """The agent opened a document."""

    doc_id: str


@dataclass(frozen=True, slots=True)
class Thought:
    """The agent wrote something down, about the document it has just opened if it has.

    Attributes:
        helps: what it believes of the document; it is not published, the text has to say it.
    """

    text: str
    helps: bool | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The agent answered."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer was right, or not."""

    outcome: Literal["correct", "incorrect"]


Step = Asked | Browsed | Thought | Answered | Ended
Agent = Generator[Step, Sequence[Hit], None]
"""An agent at work: yields its steps; after :class:`Asked` it is sent the hits, in rank order."""


@dataclass(frozen=True, slots=True)
class Mind:
    """What decides an agent's draws.

    Attributes:
        seed: the parts that seed it, such as (seed, turn, need id).
        persona: how much it writes.
    """

    seed: tuple[object, ...]
    persona: Persona

    @classmethod
    def of(cls, *seed: object) -> "Mind":
        """A mind seeded by ``seed``, its persona too."""
        return cls(seed, draw(*seed, "persona").choice(PERSONAS))

    @property
    def trajectory_id(self) -> str:
        """Names its trajectory: the same seed gives the same id."""
        return digest(*self.seed, "trajectory")

    def draw(self, *what: object) -> Random:
        """A generator for one decision."""
        return draw(*self.seed, *what)


def act(need: Need, mind: Mind) -> Agent:
    """Everything that the agent does, in order; the last step is :class:`Ended`."""
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
    """The hits that look best, best first: shared words in the snippet, rank, and some whim."""
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
    """A generator seeded by the parts alone: no thread, order or earlier draw changes it.

    >>> draw(7, "need", 3).random() == draw(7, "need", 3).random()
    True
    """
    return random.Random(digest(*what))


def digest(*what: object) -> str:
    """32 hex digits that name the parts."""
    return hashlib.sha256("\x1f".join(map(str, what)).encode()).hexdigest()[:32]
