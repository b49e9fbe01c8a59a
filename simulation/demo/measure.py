"""Quality of the live retriever, and success of agents, on needs of no trajectory.

Every turn measures the same needs with the same draws, so only the retriever makes a difference.
Nothing is published, so no model is trained on these needs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.releases import Metrics
from simulation import fleet
from simulation.corpus import Need
from simulation.fleet import AT_ONCE, Progress, SearchMany
from simulation.scripted import Asked, Browsed, Ended, Hit, Mind, Step, act
from trainer.evaluate import evaluation
from trainer.evaluate.evaluation import QueryMetrics


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Share of agents with a correct answer, and mean number of searches and browses."""

    success_rate: float
    mean_steps: float


def quality(
    needs: Sequence[Need], search_many: SearchMany, *, progress: Progress = lambda done, of: None
) -> Metrics:
    """Search with the text of every need; means over needs.

    Raises:
        Whatever ``search_many`` raises.
    """
    found = by_need(needs, search_many, progress=progress)
    return evaluation.mean({str(number): metrics for number, metrics in enumerate(found)})


def by_need(
    needs: Sequence[Need], search_many: SearchMany, *, progress: Progress = lambda done, of: None
) -> list[QueryMetrics]:
    """The figures of each need, in order.

    Raises:
        Whatever ``search_many`` raises.
    """
    rankings: list[list[str]] = []
    for start in range(0, len(needs), AT_ONCE):
        queries = [need.text for need in needs[start : start + AT_ONCE]]
        rankings += [[hit.doc_id for hit in hits] for hits in search_many(queries)]
        progress(len(rankings), len(needs))
    return evaluation.measure([need.relevant for need in needs], rankings)


def behaviour(
    needs: Sequence[Need],
    search_many: SearchMany,
    *,
    seed: int,
    progress: Progress = lambda done, of: None,
) -> Behaviour:
    """Run an agent for every need; their searches are batched.

    Raises:
        Whatever ``search_many`` raises.
    """
    counts: Counter[str] = Counter()

    def count(_: Need, step: Step, hits: Sequence[Hit]) -> None:
        counts["steps"] += isinstance(step, Asked | Browsed)
        counts["correct"] += isinstance(step, Ended) and step.outcome == "correct"

    agents = ((need, act(need, Mind.of(seed, "measured", need.need_id))) for need in needs)
    fleet.work_in_rounds(agents, search_many, count, progress=progress)
    return Behaviour(counts["correct"] / len(needs), counts["steps"] / len(needs))
