"""Numbers in sentences."""

import doctest

from retrail_cli import output


def test_examples_are_true() -> None:
    assert doctest.testmod(output) == (0, 2)
