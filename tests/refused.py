"""What the error of a refused connection says, and how soon it comes."""

import time
from collections.abc import Callable

import pytest

from schemas.errors import ConfigurationError, RetrailError

Errors = type[RetrailError] | tuple[type[RetrailError], ...]


def assert_refused(
    call: Callable[[], object], *wanted: str, errors: Errors = ConfigurationError
) -> None:
    """One line with every ``wanted`` part within 5 s, and no advice to start a local stack."""
    began = time.monotonic()
    with pytest.raises(errors) as caught:
        call()
    assert time.monotonic() - began < 5
    text = str(caught.value)
    for part in wanted:
        assert part in text
    assert "retrail up" not in text
    assert "\n" not in text
