"""The gate: decides whether a child ships, from metrics on held-out queries (docs/gate.md).

Parent and child must be evaluated on the same queries over the same pool.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from schemas.releases import Comparison, Decision, GateDecision
from schemas.runs import Caps
from trainer.evaluate import evaluation
from trainer.evaluate.evaluation import Judgements, QueryMetrics

Interval = tuple[float, float]
"""Lower and upper one-sided 95% bound; together a two-sided 90% interval."""

Verdict = tuple[Decision, str]
"""A decision and its reason."""

CONFIDENCE = 0.95
"""Confidence of each bound."""

RESAMPLES = 10_000

_DRAWS_AT_ONCE = 4_000_000

_STRICTEST: tuple[Decision, ...] = ("reject", "hold", "ship")


@dataclass(frozen=True, slots=True)
class Rule:
    """Requirements for a comparison.

    Attributes:
        margin: fall of nDCG@10 that must be ruled out.
        min_queries: with fewer queries the child is held.
        may_fall: whether the mean may fall within the margin.
    """

    margin: float
    min_queries: int = 1
    may_fall: bool = False


def decide(
    held_out: Comparison | None,
    rule: Rule,
    *,
    since_parent: bool = False,
    ancestor: tuple[int, Comparison | None] | None = None,
    regression_set: bool = False,
    regression: Comparison | None = None,
    manual: bool = False,
    caps: Caps | None = None,
    documents: int | None = None,
) -> GateDecision:
    """The strictest of the decisions on held-out queries, ancestor and regression set.

    Without held-out queries the child is held: the parent keeps serving, and the run's pairs enter
    the next run.

    Args:
        held_out: comparison on the held-out queries; ``None`` if there are none.
        rule: for the held-out queries; its margin applies to all comparisons.
        since_parent: whether the queries were first asked after those of the parent's run; for the
            reason.
        ancestor: an earlier release, and the child compared with it on the same queries, so that
            small losses cannot add up.
        regression_set: whether there is a regression set.
        regression: comparison on it; ``None`` if none of its documents is in the corpus.
        manual: whether ``ship`` becomes ``pending``, for an operator's approval.
        caps: caps of the held-out queries, for the record.
        documents: that were searched, for the record.
    """
    found = [_of_held_out(held_out, rule, since_parent=since_parent)]
    version, compared = ancestor or (None, None)
    lenient = Rule(rule.margin, may_fall=True)
    if compared is not None:
        found.append(_judged(compared, lenient, f"from release {version} it"))
    if regression_set:
        found.append(_of_regression(regression, lenient))
    decision = min((decision for decision, _ in found), key=_STRICTEST.index)
    reasons = [reason for _, reason in found]
    if manual and decision == "ship":
        decision = "pending"
        reasons.append("it awaits `retrail promote`")
    return GateDecision(
        decision=decision,
        reason="; ".join(reasons),
        held_out=held_out,
        ancestor=compared,
        ancestor_version=version,
        regression=regression,
        margin=rule.margin,
        caps=caps,
        documents=documents,
    )


def verdict(difference: float, interval: Interval, queries: int, rule: Rule) -> Verdict:
    """The decision on one comparison, and its reason.

    ========================================================================= ========
    condition                                                                 decision
    ========================================================================= ========
    there are fewer than ``rule.min_queries``                                 hold
    the lower bound is above −margin, and the mean does not fall, or it may   ship
    the upper bound is below 0; if the mean may fall, below −margin           reject
    else                                                                      hold
    ========================================================================= ========
    """
    low, high = interval
    if queries < rule.min_queries:
        return "hold", (
            f"{rule.min_queries - queries:,} more are needed for a decision "
            f"(RETRAIL_GATE_MIN_QUERIES {rule.min_queries:,})"
        )
    fall = f"a fall by {rule.margin:g} or more"
    rises = difference >= 0 or rule.may_fall
    if rises and low > -rule.margin:
        return "ship", f"{fall} is ruled out"
    if high < (-rule.margin if rule.may_fall else 0.0):
        return "reject", "the fall is significant"
    if rises:
        return "hold", f"{fall} is not ruled out"
    return "hold", "the fall is not significant"


def compare(
    parent: Mapping[str, QueryMetrics],
    child: Mapping[str, QueryMetrics],
    *,
    relevant: Judgements = MappingProxyType({}),
    seed: int = 0,
) -> Comparison | None:
    """Compare parent and child; ``None`` if there is no query.

    Args:
        parent, child: metrics by query.
        relevant: documents by query. Queries with a common relevant document form a cluster (see
            :func:`bootstrap_interval`); by default each query is a cluster.
        seed: of the resampling, so that a repeated run makes the same decision.

    Raises:
        ValueError: parent and child have different queries.
    """
    if parent.keys() != child.keys():
        raise ValueError("parent and child were measured on different queries")
    if not parent:
        return None
    queries = sorted(parent)
    differences = [child[query].ndcg_at_10 - parent[query].ndcg_at_10 for query in queries]
    members = clusters(queries, relevant)
    return Comparison(
        queries=len(queries),
        parent_metrics=evaluation.mean(parent),
        child_metrics=evaluation.mean(child),
        difference=math.fsum(differences) / len(queries),
        interval=bootstrap_interval(differences, members, seed=seed),
    )


def bootstrap_interval(
    differences: Sequence[float],
    cluster: Sequence[int] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """One-sided bounds of the mean difference, by the paired percentile bootstrap.

    Differences are paired by query, so the difficulty of a query cancels. Whole clusters are
    resampled (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8),
    because several queries for one document are correlated: resampled one by one they would narrow
    the interval too much.

    Args:
        differences: child − parent, one per query; at least one.
        cluster: number of each query's cluster, 0, 1, …; by default each query is a cluster.
        seed: of the resampling.
        resamples: number of resampled means; memory does not depend on it.
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


def clusters(queries: Sequence[str], relevant: Judgements) -> list[int]:
    """The number of each query's cluster, 0, 1, …, in order of first occurrence.

    Clusters are the connected components of the queries, with an edge between queries that have a
    relevant document in common.
    """
    leader = list(range(len(queries)))

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[str, int] = {}
    for index, query in enumerate(queries):
        for doc_id, grade in evaluation.grades_of(relevant.get(query, {})).items():
            if grade:
                one, other = sorted((lead(index), lead(first.setdefault(doc_id, index))))
                leader[other] = one
    numbers: dict[int, int] = {}
    return [numbers.setdefault(lead(index), len(numbers)) for index in range(len(queries))]


def _of_held_out(found: Comparison | None, rule: Rule, *, since_parent: bool) -> Verdict:
    if found is None:
        return "hold", (
            "there is no held-out query with a document in the corpus yet, so the child cannot be "
            "evaluated; its pairs enter the next run"
        )
    which = "held-out queries first asked since the parent" if since_parent else "held-out queries"
    return _judged(found, rule, "mean nDCG@10", which)


def _of_regression(found: Comparison | None, rule: Rule) -> Verdict:
    if found is None:
        return "hold", "no document of the regression set is in the corpus"
    return _judged(found, rule, "on the regression set it")


def _judged(found: Comparison, rule: Rule, what: str, which: str = "queries") -> Verdict:
    """The verdict on a comparison, with its figures in the reason."""
    low, high = found.interval
    decision, reason = verdict(found.difference, found.interval, found.queries, rule)
    figures = f"{found.difference:+.4f} ({low:+.4f} to {high:+.4f}) over {found.queries:,}"
    return decision, f"{what} changes by {figures} {which}; {reason}"
