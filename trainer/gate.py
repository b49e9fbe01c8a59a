"""Whether a child may serve: a pure decision over held-out queries (DESIGN, "Training").

Only queries that parent and child were both measured on count, over the same pool.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.releases import Metrics
from trainer import evaluation
from trainer.evaluation import QueryMetrics

Decision = Literal["ship", "hold", "reject"]

Rule = Callable[[Sequence[float]], tuple[Decision, str]]
"""From the difference in nDCG@10 (child − parent) of each query to a decision and its reason.

There is at least one query. The differences come in the order of the queries' names, so a rule
that draws from them with a seed draws alike every time.
"""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What a release records.

    Attributes:
        queries: held-out queries compared on.
        parent, child: means over them; absent without any.
        difference: mean nDCG@10 of the child minus the parent's; absent without any.
        reason: in words.
    """

    decision: Decision
    queries: int
    parent: Metrics | None
    child: Metrics | None
    difference: float | None
    reason: str


def decide(
    parent: Mapping[str, QueryMetrics], child: Mapping[str, QueryMetrics], rule: Rule
) -> GateDecision:
    """Compare child and parent.

    Without a held-out query nothing is known about the child, so it is held: the parent goes on
    serving, and the run's pairs enter the next run, which by then may have one.

    Raises:
        ValueError: they were not measured on the same queries.
    """
    if parent.keys() != child.keys():
        raise ValueError("parent and child were measured on different queries")
    if not parent:
        return GateDecision(
            "hold",
            0,
            None,
            None,
            None,
            "there is no held-out query with a known document yet, so the child cannot be "
            "compared; its pairs enter the next run",
        )
    queries = sorted(parent)
    differences = [child[query].ndcg_at_10 - parent[query].ndcg_at_10 for query in queries]
    decision, reason = rule(differences)
    return GateDecision(
        decision=decision,
        queries=len(queries),
        parent=evaluation.mean(parent),
        child=evaluation.mean(child),
        difference=math.fsum(differences) / len(queries),
        reason=reason,
    )


def not_below(margin: float = 0.0) -> Rule:
    """Ship unless the mean falls by more than ``margin``, else reject."""

    def rule(differences: Sequence[float]) -> tuple[Decision, str]:
        mean = math.fsum(differences) / len(differences)
        change = f"mean nDCG@10 changes by {mean:+.4f} over {len(differences)} held-out queries"
        allowed = "it may not fall" if margin == 0 else f"it may fall by {margin:g}"
        return ("ship" if mean >= -margin else "reject"), f"{change}; {allowed}"

    return rule
