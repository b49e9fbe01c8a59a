import math
import random
from statistics import mean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Outcome
from schemas.settings import OutcomePolicy
from tests.trainer.labelled import labelled
from trainer.data.weighting import ENOUGH_PAIRS, measure, outcome_factor, weight


def reference(length: int, lengths: list[int]) -> float:
    """LRAT, eq. 3, as printed."""
    beta = median(lengths)

    def unnormalised(tokens: int) -> float:
        return 1 - math.exp(-math.log(2) * tokens / beta)

    return unnormalised(length) / mean(unnormalised(tokens) for tokens in lengths)


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=200))
def test_weights_are_those_of_the_paper_and_average_one(lengths: list[int]) -> None:
    pairs = [labelled(i, reasoning_tokens=length) for i, length in enumerate(lengths)]
    intensity = measure(pairs)

    weights = [weight(pair, intensity) for pair in pairs]

    assert weights == pytest.approx([reference(length, lengths) for length in lengths], rel=1e-9)
    assert mean(weights) == pytest.approx(1.0)


def test_each_agent_model_has_its_own_intensity() -> None:
    terse = [labelled(i, model="terse", reasoning_tokens=10 + i) for i in range(ENOUGH_PAIRS)]
    wordy = [
        labelled(100 + i, model="wordy", reasoning_tokens=100 * (10 + i))
        for i in range(ENOUGH_PAIRS)
    ]
    intensity = measure([*terse, *wordy])

    assert set(intensity.by_agent_model) == {"terse", "wordy"}
    assert intensity.by_agent_model["wordy"].beta == 100 * intensity.by_agent_model["terse"].beta
    for short, long in zip(terse, wordy, strict=True):
        assert weight(short, intensity) == pytest.approx(weight(long, intensity))


def test_an_agent_model_with_few_pairs_uses_the_overall_intensity() -> None:
    many = [labelled(i, model="many", reasoning_tokens=100) for i in range(ENOUGH_PAIRS)]
    few = [labelled(100 + i, model="few", reasoning_tokens=7) for i in range(ENOUGH_PAIRS - 1)]
    intensity = measure([*many, *few])

    assert set(intensity.by_agent_model) == {"many"}
    assert intensity.overall is not None
    assert intensity.overall.pairs == 2 * ENOUGH_PAIRS - 1
    assert weight(few[0], intensity) == pytest.approx(
        reference(7, [100] * ENOUGH_PAIRS + [7] * (ENOUGH_PAIRS - 1))
    )


def test_only_relevant_pairs_with_a_reasoning_are_measured() -> None:
    counted = [labelled(i, reasoning_tokens=10) for i in range(3)]
    passed_over = [
        labelled(10, reasoning_tokens=5000, verdict="irrelevant"),
        labelled(11),
        labelled(12, reasoning_tokens=0),
    ]

    assert measure([*counted, *passed_over]) == measure(counted)


def test_a_pair_without_reasoning_has_weight_one() -> None:
    intensity = measure([labelled(0, reasoning_tokens=10)])

    assert weight(labelled(1), intensity) == 1.0
    assert weight(labelled(2, reasoning_tokens=0), intensity) == 1.0
    assert weight(labelled(3), measure([])) == 1.0


def test_a_pair_without_measured_intensity_is_an_error() -> None:
    with pytest.raises(ValueError, match="no intensity"):
        weight(labelled(0, reasoning_tokens=10), measure([]))


def test_the_order_of_pairs_does_not_matter() -> None:
    draw = random.Random(3)
    pairs = [labelled(i, reasoning_tokens=draw.randint(1, 900)) for i in range(300)]
    shuffled = draw.sample(pairs, len(pairs))

    assert measure(pairs) == measure(shuffled)


@pytest.mark.parametrize(
    ("policy", "correct", "incorrect", "unknown"),
    [("all", 1, 1, 1), ("correct_only", 1, 0, 0), ("weight", 1, 0.5, 1)],
)
def test_every_policy_and_outcome(
    policy: OutcomePolicy, correct: float, incorrect: float, unknown: float
) -> None:
    expected: dict[Outcome, float] = {
        "correct": correct,
        "incorrect": incorrect,
        "unknown": unknown,
    }
    assert {outcome: outcome_factor(policy, outcome) for outcome in expected} == expected
