"""The examples in docstrings are true."""

import doctest
from types import ModuleType

import pytest

from retrail_cli.documents import loading, sources


@pytest.mark.parametrize("module", [loading, sources], ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
