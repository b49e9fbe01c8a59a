"""Intervals over seeds and needs."""

import numpy as np
import pytest

from benchmarks.intervals import estimates


def gain(means):  # type: ignore[no-untyped-def]
    return means["child"] - means["parent"]


def test_what_varies_alike_in_both_is_no_doubt_about_their_difference() -> None:
    parent = np.random.default_rng(0).random((5, 80))
    found = estimates({"parent": parent, "child": parent + 0.03}, {"gain": gain})["gain"]
    assert found.value == pytest.approx(0.03)
    assert (found.low, found.high) == (pytest.approx(0.03), pytest.approx(0.03))


@pytest.mark.parametrize("varies", ["seeds", "needs"])
def test_seeds_and_needs_are_both_doubt(varies: str) -> None:
    shape = (5, 1) if varies == "seeds" else (1, 80)
    noise = np.random.default_rng(1).normal(0.03, 0.1, shape) * np.ones((5, 80))
    parent = np.zeros((5, 80))
    found = estimates({"parent": parent, "child": parent + noise}, {"gain": gain})["gain"]
    spread = noise.std() / np.sqrt(max(shape))
    assert found.value == pytest.approx(noise.mean())
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.1)
    assert found.low < found.value < found.high


def test_variants_of_other_needs_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same seeds and needs"):
        estimates({"parent": np.zeros((5, 80)), "child": np.zeros((4, 80))}, {"gain": gain})
