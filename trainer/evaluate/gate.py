"""Whether a child may serve: a pure decision over held-out queries (DESIGN, "Training").

Only queries that parent and child were both measured on count, over the same pool. What a margin
and a minimum of queries cost and buy is measured in ``docs/gate.md``.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from schemas.releases import Metrics, Regression
from trainer.evaluate import evaluation
from trainer.evaluate.evaluation import QueryMetrics

Decision = Literal["ship", "hold", "reject", "pending"]

Interval = tuple[float, float]
"""One-sided 95% bounds, the lower and the upper one: together a two-sided 90% interval."""

CONFIDENCE = 0.95
"""Of each bound."""

RESAMPLES = 10_000

_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """How sure the gate wants to be.

    Attributes:
        margin: nDCG@10 that a child could be worse by, for all that the queries show, and ship.
        min_queries: fewer than so many tell too little: the child is held.
        seed: of the resampling, so that a repeated run decides alike.
    """

    margin: float
    min_queries: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What a release records.

    Attributes:
        queries: held-out queries compared on.
        parent, child: means over them; absent without any.
        difference: mean nDCG@10 of the child minus the parent's; absent without any.
        reason: in words.
        interval: bounds of the difference; absent without any query.
        margin: that the rule had.
        regression: the comparison on the user's own queries; absent without any.
    """

    decision: Decision
    queries: int
    parent: Metrics | None
    child: Metrics | None
    difference: float | None
    reason: str
    interval: Interval | None = None
    margin: float | None = None
    regression: Regression | None = None


def decide(
    parent: Mapping[str, QueryMetrics],
    child: Mapping[str, QueryMetrics],
    rule: Rule,
    *,
    relevant: Mapping[str, Collection[str]] | None = None,
) -> GateDecision:
    """Compare child and parent.

    Without a held-out query nothing is known about the child, so it is held: the parent goes on
    serving, and the run's pairs enter the next run, which by then may have one.

    Args:
        parent, child: metrics by query.
        rule: how sure to be.
        relevant: documents by query. Queries with a document in common are drawn together, see
            :func:`bounds`; without this every query stands for itself.

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
            margin=rule.margin,
        )
    difference, interval = _compared(parent, child, relevant or {}, rule.seed)
    decision, reason = verdict(difference, interval, len(parent), rule)
    return GateDecision(
        decision=decision,
        queries=len(parent),
        parent=evaluation.mean(parent),
        child=evaluation.mean(child),
        difference=difference,
        reason=reason,
        interval=interval,
        margin=rule.margin,
    )


def verdict(
    difference: float, interval: Interval, queries: int, rule: Rule
) -> tuple[Decision, str]:
    """The decision and its reason.

    ============================================================ ==========
    what the queries show                                        decision
    ============================================================ ==========
    there are fewer than ``rule.min_queries``                    hold
    the mean does not fall, its lower bound is above −margin     ship
    the upper bound of the mean is below 0                       reject
    else                                                         hold
    ============================================================ ==========
    """
    low, high = interval
    change = (
        f"mean nDCG@10 changes by {difference:+.4f} ({low:+.4f} to {high:+.4f}) over {queries:,} "
        "held-out queries"
    )
    missing = rule.min_queries - queries
    if missing > 0:
        return "hold", (
            f"{change}; {missing:,} more are needed for a decision (RETRAIL_GATE_MIN_QUERIES "
            f"{rule.min_queries:,})"
        )
    allowed = f"-{rule.margin:g}"
    if difference >= 0 and low > -rule.margin:
        return "ship", f"{change}; a fall by {rule.margin:g} or more is ruled out"
    if high < 0:
        return "reject", f"{change}; that is worse, beyond chance"
    if difference >= 0:
        return "hold", f"{change}; the lower bound would have to be above {allowed}"
    return "hold", f"{change}; it falls, but that may be chance"


def without_regression(
    found: GateDecision,
    parent: Mapping[str, QueryMetrics],
    child: Mapping[str, QueryMetrics],
    rule: Rule,
    *,
    relevant: Mapping[str, Collection[str]] | None = None,
) -> GateDecision:
    """The decision after the user's own queries were asked, which can only make it stricter.

    ============================================================ ==========
    what the regression set shows                                decision
    ============================================================ ==========
    the lower bound of the mean is above −margin                 as found
    the upper bound is below −margin                             reject
    else, or none of its documents is in the corpus              hold, if it was ship
    ============================================================ ==========

    Args:
        found: on the held-out queries.
        parent, child, rule, relevant: as of :func:`decide`, on the regression set.

    Raises:
        ValueError: they were not measured on the same queries.
    """
    if parent.keys() != child.keys():
        raise ValueError("parent and child were measured on different queries")
    if not parent:
        return _stricter(
            found, "hold", "no document of the regression set is in the corpus, so it says nothing"
        )
    difference, (low, high) = _compared(parent, child, relevant or {}, rule.seed)
    measured = replace(
        found,
        regression=Regression(
            queries=len(parent),
            parent_metrics=evaluation.mean(parent),
            child_metrics=evaluation.mean(child),
            difference=difference,
            interval=(low, high),
        ),
    )
    change = (
        f"on the regression set it changes by {difference:+.4f} ({low:+.4f} to {high:+.4f}) over "
        f"{len(parent):,} queries"
    )
    fall = f"a fall by {rule.margin:g} or more"
    if low > -rule.margin:
        return replace(measured, reason=f"{found.reason}; {change}")
    if high < -rule.margin:
        return _stricter(measured, "reject", f"{change}; that is {fall}, beyond chance")
    return _stricter(measured, "hold", f"{change}; {fall} is not ruled out")


def _compared(
    parent: Mapping[str, QueryMetrics],
    child: Mapping[str, QueryMetrics],
    relevant: Mapping[str, Collection[str]],
    seed: int,
) -> tuple[float, Interval]:
    """The mean difference in nDCG@10, and its bounds."""
    queries = sorted(parent)
    differences = [child[query].ndcg_at_10 - parent[query].ndcg_at_10 for query in queries]
    mean = math.fsum(differences) / len(queries)
    return mean, bounds(differences, clusters(queries, relevant), seed=seed)


def _stricter(found: GateDecision, decision: Literal["hold", "reject"], why: str) -> GateDecision:
    order = ("ship", "hold", "reject")
    strictest = max(found.decision, decision, key=order.index)
    return replace(found, decision=strictest, reason=f"{found.reason}; {why}")


def awaiting_approval(found: GateDecision) -> GateDecision:
    """The decision where a person has the last word: what would ship is pending."""
    if found.decision != "ship":
        return found
    return replace(
        found, decision="pending", reason=f"{found.reason}; it waits for `retrail promote`"
    )


def bounds(
    differences: Sequence[float],
    cluster: Sequence[int] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """One-sided bounds of the mean difference, by the paired percentile bootstrap.

    Differences are paired by query, so what makes a query hard for both models cancels. Whole
    clusters are drawn (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
    3.8): several questions for one document rise and fall together, and drawn one by one they
    would pass for more evidence than they are.

    Args:
        differences: child − parent, one a query; at least one.
        cluster: of each query, 0, 1, …; by default every query is its own.
        seed: of the draws.
        resamples: how many means are drawn. Memory does not grow with it.
    """
    values = np.asarray(differences, dtype=np.float64)
    member = np.arange(len(values)) if cluster is None else np.asarray(cluster)
    sums, sizes = np.bincount(member, weights=values), np.bincount(member)
    count = len(sums)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, resamples, rows):
        drawn = rng.integers(count, size=(min(rows, resamples - start), count), dtype=np.int32)
        means[start : start + rows] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [1 - CONFIDENCE, CONFIDENCE])
    return float(low), float(high)


def clusters(queries: Sequence[str], relevant: Mapping[str, Collection[str]]) -> list[int]:
    """By query the number of its cluster, 0, 1, … in order of the clusters' first queries.

    Two queries are in one cluster if they have a relevant document in common, or a chain of such
    queries leads from one to the other.
    """
    leader = list(range(len(queries)))

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[str, int] = {}
    for index, query in enumerate(queries):
        for doc_id in relevant.get(query, ()):
            one, other = sorted((lead(index), lead(first.setdefault(doc_id, index))))
            leader[other] = one
    numbers: dict[int, int] = {}
    return [numbers.setdefault(lead(index), len(numbers)) for index in range(len(queries))]
