"""What the test suite consists of."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_pytest_looks_into_every_folder_with_tests(pytestconfig: pytest.Config) -> None:
    ignored = pytestconfig.getini("norecursedirs")
    folders = {part for file in TESTS.rglob("test_*.py") for part in file.relative_to(TESTS).parts}
    assert "dist" in folders
    assert [name for name in folders if any(fnmatch(name, pattern) for pattern in ignored)] == []
