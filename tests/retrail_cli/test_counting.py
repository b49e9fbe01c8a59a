"""Numbers in sentences."""

import doctest

from retrail_cli import counting


def test_examples_are_true() -> None:
    assert doctest.testmod(counting) == (0, 1)
