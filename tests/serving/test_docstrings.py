"""The examples in docstrings do what they say."""

import doctest
from types import ModuleType

import pytest

from retrail_cli.documents import chunking, document_changes, document_texts
from serving.api import failures, guards
from serving.trajectories import service, sessions

MODULES = [chunking, document_changes, document_texts, failures, guards, service, sessions]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
