"""What an outcome makes of a pair's weight."""

import pytest

from schemas.events import Outcome
from schemas.settings import OutcomePolicy
from trainer.data.outcome_policy import apply


@pytest.mark.parametrize(
    ("policy", "correct", "incorrect", "unknown"),
    [("all", 1, 1, 1), ("correct_only", 1, 0, 0), ("weight", 1, 0.3, 1)],
)
def test_every_policy_and_outcome(
    policy: OutcomePolicy, correct: float, incorrect: float, unknown: float
) -> None:
    expected: dict[Outcome, float] = {
        "correct": correct,
        "incorrect": incorrect,
        "unknown": unknown,
    }
    assert {outcome: apply(policy, outcome, 0.3) for outcome in expected} == expected


def test_a_factor_of_zero_leaves_out() -> None:
    assert apply("weight", "incorrect", 0.0) == 0.0
