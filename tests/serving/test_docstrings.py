"""The examples in docstrings do what they say."""

import doctest
from types import ModuleType

import pytest

from serving import handles, problems, tools

MODULES = [handles, problems, tools]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
