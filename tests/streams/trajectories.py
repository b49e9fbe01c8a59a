"""Trajectories derived from their names, and the pairs that they give without a broker."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from schemas.events import Agent, Answer, Browse, End, Envelope, Hit, Other, Reasoning, Search
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from streams.events import Event, encode, read_published
from streams.judge.judgement import Judge, judge_named, judged, located, question
from streams.mine.fold import Fold

REASONINGS = (
    "Great, the document says that it was founded in 1907. So we have the year.",
    "That document does not mention the founder. Let's search again.",
    "No useful information here.",
    "It is about the right company, and lists its owners; now find the director.",
    "",
)


def trajectory(
    name: str, needs: int = 3, hits: int = 6, *, numbered: bool = True
) -> list[Envelope]:
    """A trajectory with every kind of step, derived from its name."""
    draw = sum(name.encode())
    events: list[Envelope] = []

    def add(kind: type[Envelope], **fields: object) -> None:
        events.append(
            kind(
                event_id=f"{name}-{len(events)}",
                trajectory_id=name,
                seq=len(events) if numbered else None,
                occurred_at=datetime(2026, 11, 1, tzinfo=UTC),
                agent=Agent(name="scout", model="model-7b"),
                **fields,
            )
        )

    for need in range(needs):
        docs = [f"d{(draw * 7 + need * 13 + rank * 3) % 97}" for rank in range(hits)]
        add(
            Search,
            query=f"{name} needs {need}",
            hits=tuple(Hit(doc_id=doc, rank=rank) for rank, doc in enumerate(docs, 1)),
        )
        for turn in range(1 + (draw + need) % 3):
            doc = docs[(draw + turn) % hits]
            add(Browse, doc_id=doc)
            text = REASONINGS[(draw + need + turn) % len(REASONINGS)]
            about = {"about": doc} if numbered else {"about_previous": True}
            add(Reasoning, text=text and f"{text} That was {doc} for {name}.", **about)
        if (draw + need) % 4 == 0:
            add(Other, name="calculator")
    add(Answer, text="1907")
    add(End, outcome="correct" if draw % 2 else "incorrect")
    return events


def interleaved(trajectories: Iterable[Sequence[Envelope]], at_once: int = 10) -> list[Envelope]:
    """All events, each trajectory's in order, as if ``at_once`` agents worked side by side."""
    waiting = [list(reversed(events)) for events in reversed(list(trajectories))]
    active: list[list[Envelope]] = []
    mixed = []
    while waiting or active:
        while waiting and len(active) < at_once:
            active.append(waiting.pop())
        mixed += [queue.pop() for queue in active]
        active = [queue for queue in active if queue]
    return mixed


def some_events(count: int, name: str = "t") -> list[Envelope]:
    """The events of ``count`` trajectories, interleaved; every third one is unnumbered."""
    return interleaved(
        trajectory(f"{name}{number}", numbered=number % 3 > 0) for number in range(count)
    )


async def judge_event(event: Event, judge: Judge | None) -> Event:
    """The event with the judge's answer, if it needs one."""
    text = question(event) if judge is not None else None
    answer = None
    if judge is not None and text is not None:
        answer = judge.verdict(text) or await judge.judge(text)
    return judged(event, judge, answer)


def mined_offline(events: Iterable[Envelope], settings: Settings) -> dict[str, LabelledPair]:
    """What the same pure functions make of the events without a broker, by pair id."""

    async def mine() -> list[LabelledPair]:
        judge = judge_named(settings)
        fold = Fold.of(settings)
        pairs = []
        for offset, event in enumerate(events):
            published, _ = read_published(event.to_json())
            found = await judge_event(located(published, "offline", 0, offset, 0), judge)
            pairs += fold.apply(offset, 0, encode(found))
        if judge is not None:
            await judge.aclose()
        return pairs + fold.close_all()

    found: dict[str, LabelledPair] = {}
    for pair in asyncio.run(mine()):
        found.setdefault(pair.pair_id, pair.content())
    return found
