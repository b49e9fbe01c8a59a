"""The examples in the client's docstrings are true."""

import doctest

import pytest

from retrail import complaints, connection, dispatch, texts, tokens, wire


@pytest.mark.parametrize("module", [complaints, connection, dispatch, texts, tokens, wire])
def test_examples_are_true(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0
