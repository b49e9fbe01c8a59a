"""Images, each built once in a session of tests."""

import functools
from collections.abc import Callable

import pytest

from tests.deploy import images


@pytest.fixture(scope="session")
def image() -> Callable[[str], str]:
    """Builds a target of deploy/Containerfile; returns its image."""
    return functools.cache(images.build)
