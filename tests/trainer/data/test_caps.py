"""Caps on the share of one agent, tenant, trajectory, query or document."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Agent
from schemas.pairs import LabelledPair
from schemas.runs import Caps
from tests.trainer.labelled import labelled
from trainer.data.caps import FAIR, GROUPS, UNCAPPED, apply, limit

LABELS: dict[str, Any] = {
    "agent": lambda value: {"agent": Agent(name=value, model="m")},
    "tenant": lambda value: {"tenant": value},
    "trajectory": lambda value: {"trajectory_id": value},
    "query": lambda value: {"query": value},
    "document": lambda value: {"positive": value},
}
"""Fields of a pair in group N, by kind of cap."""


def sized(name: str, *sizes: int) -> list[LabelledPair]:
    """Pairs in groups of these sizes, by one kind of cap."""
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    return [labelled(n, **LABELS[name](f"group {group}")) for n, group in enumerate(groups)]


def left(name: str, share: float, run: int, *sizes: int) -> list[int]:
    """Sizes of the groups after the cap of one kind."""
    caps = UNCAPPED.model_copy(update={name: share, "run": run})
    pairs = sized(name, *sizes)
    capped = apply(pairs, caps, seed=0, parent=1)
    assert capped.left_out == Counter({f"{name} cap": len(pairs) - len(capped.pairs)}) + Counter()
    found = Counter(GROUPS[name](pair) for pair in capped.pairs)
    return [found[f"group {group}"] for group in range(len(sizes))]


EQUAL = [name for name in GROUPS if name not in FAIR]


@pytest.mark.parametrize("name", EQUAL)
def test_a_flood_is_cut_to_its_share_of_what_is_left(name: str) -> None:
    assert left(name, 0.5, 1, 1000, 60, 40) == [100, 60, 40]
    assert left(name, 0.25, 1, 1000, 60, 40, 10, 10) == [20, 20, 20, 10, 10]


@pytest.mark.parametrize("name", GROUPS)
def test_a_single_group_is_not_capped(name: str) -> None:
    assert left(name, 0.01, 1, 300) == [300]


@pytest.mark.parametrize("name", FAIR)
def test_a_trajectory_query_or_document_may_have_three_times_an_equal_share(name: str) -> None:
    sizes = [90, *[10] * 29]
    assert left(name, 0.01, 1, *sizes) == [32, *[10] * 29]
    assert left(name, 0.2, 1, *sizes) == [72, *[10] * 29]
    assert left(name, 0.01, 1, 50, 5, 1) == [50, 5, 1]


def test_each_of_few_groups_may_have_an_equal_share() -> None:
    assert left("agent", 0.1, 1, 50, 50) == [50, 50]
    assert left("agent", 0.1, 1, 90, 30) == [30, 30]


def test_a_small_run_loses_nothing() -> None:
    assert left("tenant", 0.5, 512, 200, 3) == [200, 3]
    assert left("trajectory", 0.02, 512, 12, *[1] * 200) == [10, *[1] * 200]


def test_spellings_of_a_query_are_one_query() -> None:
    pairs = [labelled(n, query=spelling) for n, spelling in enumerate(["what", " WHAT "] * 10)]
    pairs += [labelled(100 + n) for n in range(10)]
    capped = apply(pairs, UNCAPPED.model_copy(update={"query": 0.1}), seed=0, parent=1)
    assert capped.left_out == {"query cap": 17}


def test_the_seed_selects_the_pairs_that_stay() -> None:
    pairs = sized("agent", 100, 20)
    caps = UNCAPPED.model_copy(update={"agent": 0.5})
    chosen = apply(pairs, caps, seed=0, parent=1)
    assert chosen == apply(pairs[::-1], caps, seed=0, parent=1)
    assert chosen.pairs != apply(pairs, caps, seed=1, parent=1).pairs
    assert chosen.pairs != apply(pairs, caps, seed=0, parent=2).pairs


shares = st.floats(0.01, 1.0)
pairs_of_groups = st.lists(st.tuples(*[st.integers(0, 4)] * 4), max_size=80)


@given(pairs_of_groups, shares, shares, shares, shares, shares, st.integers(1, 40))
def test_no_group_has_more_than_its_share_and_no_run_is_emptied(
    groups: list[tuple[int, int, int, int]],
    agent: float,
    tenant: float,
    trajectory: float,
    query: float,
    document: float,
    run: int,
) -> None:
    pairs = [
        labelled(
            number,
            agent=Agent(name=str(a), model="m"),
            tenant=str(t),
            query=f"query {q}",
            positive=str(d),
            trajectory_id=f"{a} {t}",
        )
        for number, (a, t, q, d) in enumerate(groups)
    ]
    caps = Caps(
        agent=agent, tenant=tenant, trajectory=trajectory, query=query, document=document, run=run
    )
    capped = apply(pairs, caps, seed=0, parent=1)
    assert len(capped.pairs) + sum(capped.left_out.values()) == len(pairs)
    assert bool(capped.pairs) == bool(pairs)
    assert {pair.pair_id for pair in capped.pairs} <= {pair.pair_id for pair in pairs}
    for name, group_of in GROUPS.items():
        sizes = Counter(group_of(pair) for pair in capped.pairs)
        fair = FAIR.get(name, 1.0)
        share = min(1.0, max(getattr(caps, name), fair / len(sizes))) if sizes else 1.0
        allowed = max(1, share * len(capped.pairs) + 1e-6, getattr(caps, name) * run)
        assert max(sizes.values(), default=0) <= allowed


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), shares, st.integers(1, 100))
def test_the_limit_is_the_largest_valid_one(sizes: list[int], share: float, run: int) -> None:
    found = limit(sizes, share, run)
    equal = max(share, 1 / len(sizes))

    def holds(most: int) -> bool:
        return most <= equal * sum(min(size, most) for size in sizes) + 1e-6

    least = max(1, int(share * run))
    assert found >= least
    assert found == least or holds(found)
    assert found >= max(sizes) or not holds(found + 1)
