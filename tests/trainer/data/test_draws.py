"""Held-out queries and drawn pairs, by hash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.draws import draw, is_held_out, normalize_query, place


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_case_and_spacing_do_not_matter_and_shares_nest(query: str, one: float, two: float) -> None:
    small, large = sorted((one, two))

    assert normalize_query(normalize_query(query)) == normalize_query(query)
    assert is_held_out(f"  {query}\n", small) == is_held_out(query, small)
    assert is_held_out(query, large) or not is_held_out(query, small)
    assert not is_held_out(query, 0.0)
    assert is_held_out(query, 1.0)


def test_about_a_fifth_is_held_out() -> None:
    share = sum(is_held_out(f"query {number}") for number in range(10_000)) / 10_000

    assert share == pytest.approx(0.2, abs=0.015)


def test_the_hash_of_a_query_never_changes() -> None:
    chosen = [number for number in range(30) if is_held_out(f"query {number}")]

    # By hand: sha256(query)[:8] as a big-endian number, below 0.2 · 2^64.
    assert chosen == [5, 9, 16, 17, 21, 27]
    assert is_held_out("QUERY  5")


@given(st.sets(st.text(max_size=5)), st.integers(0, 10), st.integers(0, 3), st.integers(1, 3))
def test_a_draw_depends_on_seed_and_parent_alone(
    ids: set[str], count: int, seed: int, parent: int
) -> None:
    chosen = draw(sorted(ids), count, seed=seed, parent=parent)
    assert chosen == draw(sorted(ids, reverse=True), count, seed=seed, parent=parent)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= ids
    assert len(chosen) == min(count, len(ids))
    by_place = sorted(ids, key=lambda name: place(name, seed=seed, parent=parent))
    assert set(by_place[:count]) == set(chosen)


def test_draws_differ_between_seeds() -> None:
    ids = [str(n) for n in range(100)]
    assert draw(ids, 10, seed=1, parent=1) != draw(ids, 10, seed=2, parent=1)
    assert draw(ids, 10, seed=1, parent=1) != draw(ids, 10, seed=1, parent=2)
