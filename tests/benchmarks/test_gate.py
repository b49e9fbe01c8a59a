"""Worlds of a known difference, out of measured ones."""

import numpy as np
import pytest

from benchmarks.gate import decisions, drawn, world

CLUSTERS = [[0.0], [0.0, 0.1], [-0.4], [0.0, 0.0, 0.3], [0.5], [0.0, -0.2], [0.0]]


@pytest.mark.parametrize("mean", [-0.02, 0.0, 0.03])
def test_a_world_has_its_mean_over_queries(mean: float) -> None:
    weights = world(CLUSTERS, mean)
    sums, sizes = np.array([sum(some) for some in CLUSTERS]), np.array([*map(len, CLUSTERS)])
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ sums / (weights @ sizes) == pytest.approx(mean)


def test_so_many_queries_are_drawn_in_whole_clusters_but_for_the_last() -> None:
    differences, members = drawn(CLUSTERS, world(CLUSTERS, 0.0), 50, np.random.default_rng(0))
    assert len(differences) == len(members) == 50
    found = [
        [d for d, member in zip(differences, members, strict=True) if member == number]
        for number in range(max(members) + 1)
    ]
    assert all(some in CLUSTERS for some in found[:-1])


def test_better_children_ship_more_often_and_wider_margins_let_more_pass() -> None:
    worse, better = (decisions(CLUSTERS, world(CLUSTERS, m), 100, 200, 0) for m in (-0.02, 0.03))
    for margin, found in worse.items():
        assert found.total() == 200
        assert found["ship"] < better[margin]["ship"]
    shipped = [found["ship"] for _, found in sorted(better.items())]
    assert shipped == sorted(shipped)
