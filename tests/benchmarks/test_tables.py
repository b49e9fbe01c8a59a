"""Tables and pictures of finished runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import campaign, intervals
from benchmarks.ablation import chart as ablation_chart
from benchmarks.ablation import tables as ablation
from benchmarks.ablation.runs import Run
from benchmarks.learning import chart as learning_chart
from benchmarks.learning import tables as learning
from benchmarks.learning.runs import Run as Seed
from benchmarks.learning.runs import Turn

NEEDS = 60
GAINS = {
    "parent": 0.0,
    "hard+passes": 0.048,
    "naive": -0.02,
    "oracle": 0.05,
    "filter": 0.04,
    "reweight": 0.045,
}


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 500)


def values(gain: float, seed: int) -> tuple[float, ...]:
    needs = np.random.default_rng(0).random(NEEDS) / 2
    noise = np.random.default_rng([seed, round(gain * 1000) + 100]).normal(0, 0.01, NEEDS)
    return tuple((needs + gain + noise).tolist())


def a_run(seed: int, variant: str) -> Run:
    ndcg = values(GAINS[variant], seed)
    return Run("corpus", seed, variant, 100, 4, 0.9, ndcg, 0.5, 1.0)


def a_seed(seed: int, *system: float, full: float = 0.04) -> Seed:
    turns = tuple(
        Turn(n, n + 1, "ship", 10, 4, 0.3, values(gain, seed), values(0.02 * n, seed))
        for n, gain in enumerate((0.0, *system))
    )
    return Seed("corpus", seed, 100, turns, 1.0, values(full, seed))


def test_each_variant_is_compared_over_the_seeds_that_it_was_run_with() -> None:
    runs = [a_run(seed, variant) for seed in range(3) for variant in GAINS]
    runs = [run for run in runs if (run.seed, run.variant) != (0, "hard+passes")]
    [found] = ablation.comparisons([*runs, a_run(3, "filter")])
    for variant, row in found.rows.items():
        assert [run.seed for run in row.runs] == ([1, 2] if variant == "hard+passes" else [0, 1, 2])
        assert row.gain.value == pytest.approx(GAINS[variant], abs=0.005)
        assert row.shares.keys() == {"oracle"}
    of_oracle = found.rows["oracle"].shares["oracle"]
    assert of_oracle.value == of_oracle.low == 1.0
    assert found.rows["reweight"].shares["oracle"].value == pytest.approx(0.9, abs=0.1)
    assert list(found.rows) == ["naive", "filter", "reweight", "hard+passes", "oracle"]
    assert set(found.contrasts) >= {("hard+passes", "reweight"), ("reweight", "oracle")}
    assert found.contrasts["filter", "naive"].low > 0.05
    assert sum(line.startswith("| ") for line in ablation.markdown(runs)) == len(GAINS)
    assert ablation.comparisons([a_run(0, "parent"), a_run(1, "naive")])[0].rows == {}
    assert ablation.comparisons([a_run(0, "naive")]) == []


def test_the_oracle_with_as_many_examples_is_the_one_to_compare_with() -> None:
    more = [replace(a_run(seed, "hard+passes"), variant="oracle+hard+passes") for seed in range(3)]
    runs = [a_run(seed, variant) for seed in range(3) for variant in GAINS]
    [found] = ablation.comparisons([*runs, *more])
    assert found.rows["hard+passes"].shares["oracle"].value == 1.0
    assert found.rows["reweight"].shares["oracle"].value == pytest.approx(0.9, abs=0.1)


def test_gains_are_shares_of_full_supervision_where_it_was_run() -> None:
    fully = [replace(a_run(seed, "filter"), variant="full") for seed in range(3)]
    runs = [a_run(seed, variant) for seed in range(3) for variant in ("parent", "naive")]
    [found] = ablation.comparisons([*runs, *fully])
    assert found.rows["full"].shares["full"].value == 1.0
    assert found.rows["naive"].shares.keys() == {"full"}
    assert found.rows["naive"].shares["full"].value == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize(
    ("seeds", "gains", "verdict"),
    [
        (5, (0.02, 0.04), "reached"),
        (5, (0.02, 0.02), "not reached"),
        (5, (0.06, 0.04), "not reached"),
        (3, (0.02, 0.04), "open, 2 of 5 seeds are to be taken"),
    ],
)
def test_learning_reaches_its_goal_or_does_not(
    seeds: int, gains: tuple[float, float], verdict: str
) -> None:
    runs = [a_seed(seed, *gains) for seed in range(seeds)]
    [found] = learning.learned(runs)
    assert found.share.value == pytest.approx(gains[1] / 0.04, abs=0.05)
    assert found.verdict == verdict
    assert any("goal" in line and verdict in line for line in learning.markdown(runs))


def test_the_system_is_compared_with_full_supervision_where_it_was_trained() -> None:
    [found] = learning.learned([a_seed(seed, 0.02, 0.04, full=0.05) for seed in range(5)])
    assert found.of_full is not None
    assert found.of_full.value == pytest.approx(0.8, abs=0.05)
    assert found.verdict == "not reached"
    [found] = learning.learned([replace(a_seed(n, 0.02, 0.04), full=()) for n in range(5)])
    assert (found.of_full, found.verdict) == (None, "open, full supervision is to be trained")


def test_seeds_with_other_numbers_of_agents_are_another_table() -> None:
    more = replace(a_seed(1, 0.06, 0.06), agents=500)
    found = learning.learned([a_seed(0, 0.04, 0.04), more])
    assert [(each.agents, each.seeds) for each in found] == [(100, 1), (500, 1)]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    runs = [a_run(seed, variant) for seed in range(3) for variant in GAINS]
    campaign.panels(ablation.comparisons(runs), ablation_chart.panel, tmp_path / "a.png")
    seeds = [a_seed(seed, 0.02, 0.04) for seed in range(3)]
    campaign.panels(learning.learned(seeds), learning_chart.panel, tmp_path / "l.png")
    for name in ("a.png", "l.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_second_turn_is_compared_with_its_own_parent() -> None:
    first = [a_run(seed, variant) for seed in range(2) for variant in ("parent", "reweight")]
    second = [replace(run, turn=2) for run in first if run.seed == 1]
    found = ablation.comparisons([*first, *second])
    assert [(one.corpus, one.turn) for one in found] == [("corpus", 1), ("corpus", 2)]
    assert [len(one.rows["reweight"].runs) for one in found] == [2, 1]
    text = "\n".join(ablation.markdown([*first, *second]))
    assert "untrained nDCG@10" in text
    assert "after a first turn nDCG@10" in text
