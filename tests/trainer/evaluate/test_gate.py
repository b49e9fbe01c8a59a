import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.releases import Comparison, Decision
from tests.trained import COMPARISON
from trainer.data.caps import UNCAPPED
from trainer.evaluate.evaluation import QueryMetrics
from trainer.evaluate.gate import (
    Rule,
    bootstrap_interval,
    clusters,
    compare,
    decide,
    verdict,
)


def measured(ndcg: Sequence[float]) -> dict[str, QueryMetrics]:
    return {f"q{i:03}": QueryMetrics(value, value, value) for i, value in enumerate(ndcg)}


@pytest.mark.parametrize(
    ("difference", "interval", "queries", "margin", "decision", "why"),
    [
        (0.03, (0.01, 0.05), 100, 0.0, "ship", "ruled out"),
        (0.01, (-0.015, 0.03), 100, 0.02, "ship", "a fall by 0.02 or more is ruled out"),
        (0.0, (-0.015, 0.02), 100, 0.02, "ship", "ruled out"),
        (0.01, (-0.02, 0.03), 100, 0.02, "hold", "a fall by 0.02 or more is not ruled out"),
        (0.0, (0.0, 0.0), 100, 0.0, "hold", "a fall by 0 or more is not ruled out"),
        (-0.001, (-0.01, 0.01), 100, 0.02, "hold", "not significant"),
        (-0.01, (-0.02, 0.0), 100, 0.02, "hold", "not significant"),
        (-0.01, (-0.02, -0.001), 100, 0.05, "reject", "the fall is significant"),
        (0.03, (0.01, 0.05), 99, 0.0, "hold", "1 more are needed"),
        (-0.5, (-0.6, -0.4), 30, 0.0, "hold", "70 more are needed"),
    ],
)
def test_the_table_of_the_rule(
    difference: float,
    interval: tuple[float, float],
    queries: int,
    margin: float,
    decision: Decision,
    why: str,
) -> None:
    found, reason = verdict(difference, interval, queries, Rule(margin, 100))

    assert (found, why in reason) == (decision, True), reason


def found(parent: Sequence[float], child: Sequence[float]) -> Comparison | None:
    return compare(measured(parent), measured(child))


def test_a_decision_has_all_figures() -> None:
    held_out = found([0.5] * 40, [0.5] * 20 + [0.9] * 20)
    decision = decide(held_out, Rule(0.02, 40), caps=UNCAPPED)

    assert (decision.decision, decision.margin, decision.caps) == ("ship", 0.02, UNCAPPED)
    assert decision.held_out == held_out
    assert "+0.2000" in decision.reason
    assert "over 40 held-out queries" in decision.reason
    assert held_out is not None
    assert held_out.queries == 40
    parent, child = held_out.parent_metrics, held_out.child_metrics
    assert held_out.difference == pytest.approx(child.ndcg_at_10 - parent.ndcg_at_10)
    assert 0.1 < held_out.interval[0] < 0.2 < held_out.interval[1] < 0.3


def test_figures_depend_on_queries_and_seed_and_not_on_order() -> None:
    draw = np.random.default_rng(1)
    parent, child = (measured(draw.random(60).tolist()) for _ in range(2))
    backwards = dict(reversed(parent.items())), dict(reversed(child.items()))
    once = compare(parent, child, seed=5)
    assert once == compare(*backwards, seed=5)
    assert once != compare(parent, child, seed=0)


def test_without_held_out_queries_the_child_is_held() -> None:
    assert compare({}, {}) is None
    decision = decide(None, Rule(0.0, 1))

    assert (decision.decision, decision.held_out) == ("hold", None)
    assert "no held-out query" in decision.reason


def test_only_equal_queries_can_be_compared() -> None:
    with pytest.raises(ValueError, match="different queries"):
        compare(measured([0.5]), measured([0.5, 0.6]))


def test_bounds_agree_with_the_normal_approximation() -> None:
    draw = np.random.default_rng(3)
    values = draw.normal(0.02, 0.2, size=400)
    low, high = bootstrap_interval(values.tolist())
    error = 1.645 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - error, abs=0.001)
    assert high == pytest.approx(values.mean() + error, abs=0.001)


def test_bounds_have_the_stated_coverage() -> None:
    """The true mean exceeds each bound in 5% of the samples, for skewed values, mostly 0."""
    values = np.array([0.0] * 70 + [-0.4] * 12 + [0.1] * 10 + [0.37] * 8)
    draw = np.random.default_rng(11)
    found = [
        bootstrap_interval(draw.choice(values, size=150).tolist(), seed=number, resamples=500)
        for number in range(1000)
    ]
    assert np.mean([low > values.mean() for low, _ in found]) == pytest.approx(0.05, abs=0.025)
    assert np.mean([high < values.mean() for _, high in found]) == pytest.approx(0.05, abs=0.025)


def test_queries_of_one_cluster_do_not_narrow_the_interval() -> None:
    draw = np.random.default_rng(2)
    alone = draw.normal(0.0, 0.2, size=50)
    fivefold = np.repeat(alone, 5).tolist()
    together = bootstrap_interval(fivefold, np.repeat(np.arange(50), 5).tolist())
    assert together == pytest.approx(bootstrap_interval(alone.tolist()))
    one_by_one = bootstrap_interval(fivefold)
    assert together[0] < one_by_one[0] < one_by_one[1] < together[1]


def test_many_queries_are_resampled_in_parts() -> None:
    low, high = bootstrap_interval([0.0, 0.2] * 20_000, resamples=300)
    assert 0.099 < low < 0.1 < high < 0.101


def test_queries_with_a_document_in_common_are_one_cluster() -> None:
    relevant = {"a": {"1"}, "b": {"2"}, "c": {"2", "3"}, "d": {"4"}, "e": {"3"}, "f": {"4", "1"}}
    assert clusters(["a", "b", "c", "d", "e", "f", "unknown"], relevant) == [0, 1, 1, 0, 1, 0, 2]


@given(st.lists(st.sets(st.integers(0, 12), max_size=3), max_size=15))
def test_clusters_are_the_connected_components(documents: list[set[int]]) -> None:
    names = [str(number) for number in range(len(documents))]
    relevant = {name: {str(n) for n in some} for name, some in zip(names, documents, strict=True)}
    found = clusters(names, relevant)

    parts: list[set[int]] = []
    for some in documents:
        touching = [part for part in parts if part & some]
        parts = [part for part in parts if not part & some]
        parts.append(some.union(*touching))
    for i, one in enumerate(documents):
        for j, other in enumerate(documents):
            connected = i == j or any(part & one and part & other for part in parts)
            assert (found[i] == found[j]) == connected
    assert list(dict.fromkeys(found)) == list(range(len(set(found))))


def test_with_manual_approval_only_ship_becomes_pending() -> None:
    better = found([0.1] * 9, [0.5] * 9)
    worse = found([0.5] * 9, [0.1] * 9)

    assert decide(better, Rule(0.0, 1)).decision == "ship"
    assert decide(worse, Rule(0.0, 1)).decision == "reject"
    waiting = decide(better, Rule(0.0, 1), manual=True)
    assert waiting.decision == "pending"
    alone = decide(better, Rule(0.0, 1))
    assert waiting.reason == f"{alone.reason}; it awaits `retrail promote`"
    assert waiting.held_out == alone.held_out
    assert decide(worse, Rule(0.0, 1), manual=True) == decide(worse, Rule(0.0, 1))


HELD_OUT: dict[str, Comparison] = {
    "ship": COMPARISON,
    "hold": COMPARISON.model_copy(update={"interval": (-0.05, 0.05)}),
    "reject": COMPARISON.model_copy(update={"difference": -0.03, "interval": (-0.05, -0.01)}),
}


@pytest.mark.parametrize(
    ("own", "before", "decision", "why"),
    [
        ([0.0] * 30, "ship", "ship", "on the regression set it changes by +0.0000"),
        ([0.0] * 30, "hold", "hold", "over 30 queries"),
        ([-0.2, 0.0] * 15, "ship", "reject", "the fall is significant"),
        ([-0.2, 0.0] * 15, "hold", "reject", "the fall is significant"),
        ([-0.5, 0.4] * 15, "ship", "hold", "a fall by 0.02 or more is not ruled out"),
        ([-0.5, 0.4] * 15, "reject", "reject", "not ruled out"),
        ([-0.01] * 30, "ship", "ship", "-0.0100 (-0.0100 to -0.0100)"),
        ([], "ship", "hold", "no document of the regression set"),
    ],
)
def test_the_table_of_the_regression_set(
    own: list[float], before: Decision, decision: Decision, why: str
) -> None:
    rule = Rule(0.02, 100)
    alone = decide(HELD_OUT[before], rule)
    regression = found([0.5] * len(own), [0.5 + d for d in own])

    after = decide(HELD_OUT[before], rule, regression_set=True, regression=regression)

    assert alone.decision == before
    assert (after.decision, why in after.reason) == (decision, True), after.reason
    assert after.reason.startswith(f"{alone.reason}; ")
    assert (after.regression is None) == (not own)
    if after.regression is not None:
        assert after.regression.difference == pytest.approx(np.mean(own))


def test_a_regression_set_has_no_minimum_of_queries() -> None:
    rule = Rule(0.02, 100)
    few = found([0.5] * 3, [0.5] * 3)
    assert decide(COMPARISON, rule, regression_set=True, regression=few).decision == "ship"
    worse = found([0.5] * 3, [0.1] * 3)
    rejected = decide(COMPARISON, rule, regression_set=True, regression=worse, manual=True)
    assert rejected.decision == "reject"


@pytest.mark.parametrize(
    ("changes", "before", "decision"),
    [
        ([0.0] * 30, "ship", "ship"),
        ([-0.01] * 30, "ship", "ship"),
        ([-0.5, 0.4] * 15, "ship", "hold"),
        ([-0.2, 0.0] * 15, "ship", "reject"),
        ([-0.2, 0.0] * 15, "hold", "reject"),
        ([0.2] * 30, "hold", "hold"),
        ([0.2] * 30, "reject", "reject"),
    ],
)
def test_the_table_of_the_ancestor(
    changes: list[float], before: Decision, decision: Decision
) -> None:
    earlier = found([0.5] * len(changes), [0.5 + d for d in changes])

    after = decide(HELD_OUT[before], Rule(0.02, 100), ancestor=(3, earlier))

    assert after.decision == decision, after.reason
    assert (after.ancestor, after.ancestor_version) == (earlier, 3)
    assert "from release 3 it changes by" in after.reason
