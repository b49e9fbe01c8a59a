"""How good the live retriever is, on needs that no trajectory was ever about.

The same needs and the same draws in every turn, so that a difference is the retriever's. Nothing of
it is published: nobody learns from these needs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from simulation.agents import Agent, Asked, Browsed, Ended, Hit, Mind, act
from simulation.corpus import Need

CUTOFF = 10
AT_ONCE = 64
"""Queries of one search call."""

SearchMany = Callable[[Sequence[str]], Sequence[Sequence[Hit]]]
"""The hits of each query, in rank order, ten of each."""

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Of search results: means over needs."""

    ndcg_at_10: float
    recall_at_10: float


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Of agents: the share that answered rightly, and searches plus browses of each, on average."""

    success_rate: float
    mean_steps: float


def quality(
    needs: Sequence[Need], search_many: SearchMany, *, progress: Progress = lambda done, of: None
) -> Quality:
    """Search for every need in its own words.

    Raises:
        Whatever ``search_many`` raises.
    """
    gains, recalls = [], []
    for start in range(0, len(needs), AT_ONCE):
        some = needs[start : start + AT_ONCE]
        for need, hits in zip(some, search_many([need.text for need in some]), strict=True):
            found = [hit.doc_id for hit in hits]
            gains.append(ndcg(found, need.relevant))
            recalls.append(recall(found, need.relevant))
        progress(len(gains), len(needs))
    return Quality(math.fsum(gains) / len(needs), math.fsum(recalls) / len(needs))


def behaviour(
    needs: Sequence[Need],
    search_many: SearchMany,
    *,
    seed: int,
    progress: Progress = lambda done, of: None,
) -> Behaviour:
    """Let an agent work on every need; all of them search at once, in rounds, to save time.

    Raises:
        Whatever ``search_many`` raises.
    """
    steps, correct = 0, 0
    waiting: list[tuple[Agent, str]] = []

    def advance(agent: Agent, hits: Sequence[Hit] | None) -> None:
        nonlocal steps, correct
        step = next(agent) if hits is None else agent.send(hits)
        while not isinstance(step, Asked | Ended):
            steps += isinstance(step, Browsed)
            step = next(agent)
        if isinstance(step, Asked):
            steps += 1
            waiting.append((agent, step.query))
        else:
            correct += step.outcome == "correct"

    for need in needs:
        advance(act(need, Mind.of(seed, "measured", need.need_id)), None)
    while waiting:
        some = waiting[:AT_ONCE]
        del waiting[:AT_ONCE]
        for (agent, _), hits in zip(some, search_many([query for _, query in some]), strict=True):
            advance(agent, hits)
        progress(len(needs) - len(waiting), len(needs))
    return Behaviour(correct / len(needs), steps / len(needs))


def ndcg(found: Sequence[str], relevant: Mapping[str, float]) -> float:
    """nDCG@10 with linear gains, as trec_eval has it.

    >>> ndcg(["a", "b"], {"b": 1.0}) == 1 / math.log2(3)
    True
    """
    gains = [relevant.get(doc_id, 0.0) for doc_id in found[:CUTOFF]]
    return _dcg(gains) / _dcg(sorted(relevant.values(), reverse=True)[:CUTOFF])


def recall(found: Sequence[str], relevant: Mapping[str, float]) -> float:
    """Share of the relevant documents among the first ten."""
    return len(relevant.keys() & set(found[:CUTOFF])) / len(relevant)


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
