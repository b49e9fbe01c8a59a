"""Twenty runs of the gate in a row, on made-up clusters."""

import numpy as np
import pytest

from benchmarks.gate_campaign import Population, campaign, centred
from trainer.evaluate.gate import Rule

CLUSTERS = [[0.0], [0.0, 0.1], [-0.4], [0.0, 0.0, 0.3], [0.5], [0.0, -0.2], [0.0], [0.1, -0.1]]


@pytest.mark.parametrize("mean", [-0.02, 0.0, 0.03])
def test_clusters_are_repeated_until_they_have_the_mean(mean: float) -> None:
    values = [value for some in centred(CLUSTERS, mean) for value in some]
    assert np.mean(values) == pytest.approx(mean, abs=0.005)


def test_clusters_have_so_many_queries_together() -> None:
    rng = np.random.default_rng(0)
    population = Population(CLUSTERS)
    sizes = population.sizes(50, rng)
    assert sum(sizes) == 50
    assert len(population.differences(sizes, rng)) == 50


def shipped(mean: float, *, ancestor: bool) -> list[int]:
    population = {mean: Population(centred(CLUSTERS, mean))}
    return [
        len(
            campaign(
                population,
                queries=60,
                rule=Rule(0.1, 1),
                same=False,
                ancestor=ancestor,
                rng=np.random.default_rng(number),
            )
        )
        for number in range(12)
    ]


def test_better_children_ship_and_small_losses_do_not_add_up() -> None:
    alone, both = (shipped(-0.05, ancestor=ancestor) for ancestor in (False, True))
    assert sum(both) < sum(alone) < sum(shipped(0.1, ancestor=False))
