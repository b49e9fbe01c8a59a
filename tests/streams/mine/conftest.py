"""Fixtures of the miner's tests."""

import pytest

from tests.streams.mine.partition import Log


@pytest.fixture
def log():
    return Log()
