import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.heldout import folded, is_held_out


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_case_and_spacing_do_not_matter_and_shares_nest(query: str, one: float, two: float) -> None:
    small, large = sorted((one, two))

    assert folded(folded(query)) == folded(query)
    assert is_held_out(f"  {query}\n", small) == is_held_out(query, small)
    assert is_held_out(query, large) or not is_held_out(query, small)
    assert not is_held_out(query, 0.0)
    assert is_held_out(query, 1.0)


def test_about_a_fifth_is_held_out() -> None:
    share = sum(is_held_out(f"query {number}") for number in range(10_000)) / 10_000

    assert share == pytest.approx(0.2, abs=0.015)


def test_the_choice_never_changes() -> None:
    chosen = [number for number in range(30) if is_held_out(f"query {number}")]

    # By hand: sha256(query)[:8] as a big-endian number, below 0.2 · 2^64.
    assert chosen == [5, 9, 16, 17, 21, 27]
    assert is_held_out("QUERY  5")
