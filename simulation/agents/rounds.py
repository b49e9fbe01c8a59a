"""Many agents at work at once, in rounds: the searches that wait are answered together."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from simulation.agents.scripted import Agent, Asked, Ended, Hit, Step

AT_ONCE = 64
"""Queries of one search call."""

SearchMany = Callable[[Sequence[str]], Sequence[Sequence[Hit]]]
"""The hits of each query, in rank order, ten of each."""

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""

T = TypeVar("T")


def work(
    agents: Iterable[tuple[T, Agent]],
    search_many: SearchMany,
    on_step: Callable[[T, Step, Sequence[Hit]], None],
    *,
    progress: Progress = lambda done, of: None,
) -> None:
    """Run all agents to their ends.

    Args:
        agents: each with whatever ``on_step`` needs to know it by.
        on_step: called with every step of an agent in order, and with the hits of an ``Asked``; the
            steps of different agents are mixed.

    Raises:
        Whatever ``search_many`` or ``on_step`` raises.
    """
    waiting: list[tuple[T, Agent, Asked]] = []

    def advance(name: T, agent: Agent, hits: Sequence[Hit] | None) -> None:
        step = next(agent) if hits is None else agent.send(hits)
        while not isinstance(step, Asked | Ended):
            on_step(name, step, ())
            step = next(agent)
        if isinstance(step, Asked):
            waiting.append((name, agent, step))
        else:
            on_step(name, step, ())

    count = 0
    for name, agent in agents:
        count += 1
        advance(name, agent, None)
    while waiting:
        some = waiting[:AT_ONCE]
        del waiting[:AT_ONCE]
        found = search_many([asked.query for *_, asked in some])
        for (name, agent, asked), hits in zip(some, found, strict=True):
            on_step(name, asked, hits)
            advance(name, agent, hits)
        progress(count - len(waiting), count)
