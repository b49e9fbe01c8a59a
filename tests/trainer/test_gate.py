import pytest

from trainer.evaluation import QueryMetrics
from trainer.gate import Rule, decide, not_below


def measured(*ndcg: float) -> dict[str, QueryMetrics]:
    return {f"q{i}": QueryMetrics(value, value, value) for i, value in enumerate(ndcg)}


@pytest.mark.parametrize(
    ("parent", "child", "margin", "decision"),
    [
        ((0.5, 0.5), (0.6, 0.5), 0.0, "ship"),
        ((0.5, 0.5), (0.5, 0.5), 0.0, "ship"),
        ((0.1, 0.3), (0.3, 0.1), 0.0, "ship"),
        ((0.5, 0.5), (0.5, 0.49), 0.0, "reject"),
        ((0.5, 0.5), (0.5, 0.49), 0.01, "ship"),
        ((0.5, 0.5), (0.5, 0.4), 0.01, "reject"),
    ],
)
def test_a_child_ships_unless_the_mean_falls(
    parent: tuple[float, ...], child: tuple[float, ...], margin: float, decision: str
) -> None:
    found = decide(measured(*parent), measured(*child), not_below(margin))

    assert found.decision == decision
    assert found.queries == 2
    assert found.parent is not None
    assert found.child is not None
    assert found.difference == pytest.approx(found.child.ndcg_at_10 - found.parent.ndcg_at_10)
    assert "over 2 held-out queries" in found.reason


def test_without_held_out_queries_the_child_is_held() -> None:
    found = decide({}, {}, not_below())

    assert (found.decision, found.queries, found.parent, found.child) == ("hold", 0, None, None)
    assert "no held-out query" in found.reason


def test_only_equal_queries_can_be_compared() -> None:
    with pytest.raises(ValueError, match="different queries"):
        decide(measured(0.5), measured(0.5, 0.6), not_below())


def test_a_rule_sees_the_differences_in_the_order_of_the_queries() -> None:
    seen: list[list[float]] = []

    def rule() -> Rule:
        return lambda differences: (seen.append(list(differences)), ("hold", "why"))[1]  # type: ignore[func-returns-value, return-value]

    parent, child = measured(0.0, 0.0, 0.0), measured(0.1, 0.2, 0.3)
    found = decide(parent, dict(reversed(child.items())), rule())

    assert seen == [[0.1, 0.2, 0.3]]
    assert (found.decision, found.reason) == ("hold", "why")
