"""How good the live retriever is, on needs that no trajectory was ever about.

The same needs and the same draws in every turn, so that a difference is the retriever's. Nothing of
it is published: nobody learns from these needs.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from simulation.agents.scripted import Asked, Browsed, Ended, Hit, Mind, Step, act
from simulation.corpora.corpus import Need
from simulation.demo import rounds
from simulation.demo.rounds import AT_ONCE, Progress, SearchMany

CUTOFF = 10


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
    found = [*by_need(needs, search_many, progress=progress)]
    return Quality(
        math.fsum(each.ndcg_at_10 for each in found) / len(needs),
        math.fsum(each.recall_at_10 for each in found) / len(needs),
    )


def by_need(
    needs: Sequence[Need], search_many: SearchMany, *, progress: Progress = lambda done, of: None
) -> Iterator[Quality]:
    """The figures of each need alone, in order.

    Raises:
        Whatever ``search_many`` raises.
    """
    for start in range(0, len(needs), AT_ONCE):
        some = needs[start : start + AT_ONCE]
        for need, hits in zip(some, search_many([need.text for need in some]), strict=True):
            found = [hit.doc_id for hit in hits]
            yield Quality(ndcg(found, need.relevant), recall(found, need.relevant))
        progress(start + len(some), len(needs))


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
    counts: Counter[str] = Counter()

    def count(_: Need, step: Step, hits: Sequence[Hit]) -> None:
        counts["steps"] += isinstance(step, Asked | Browsed)
        counts["correct"] += isinstance(step, Ended) and step.outcome == "correct"

    agents = ((need, act(need, Mind.of(seed, "measured", need.need_id))) for need in needs)
    rounds.work(agents, search_many, count, progress=progress)
    return Behaviour(counts["correct"] / len(needs), counts["steps"] / len(needs))


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
