"""Foreign text makes a bounded number of series."""

from hypothesis import given
from hypothesis import strategies as st

from streams.metrics import NAMELESS, OTHER, BoundedLabel


def test_the_first_values_keep_their_names():
    label = BoundedLabel(most=2)
    assert [label.of(value) for value in ("a", "b", "c", "a", "c", "")] == [
        "a",
        "b",
        OTHER,
        "a",
        OTHER,
        NAMELESS,
    ]


@given(st.lists(st.text()))
def test_series_are_bounded(values):
    label = BoundedLabel(most=5)
    assert len({label.of(value) for value in values}) <= 5 + 2
