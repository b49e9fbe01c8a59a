"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T],
    timeout: float = 30,
    what: str = "the condition",
    *,
    interval: float = 0.05,
) -> T:
    """Call ``condition`` until it returns something truthy, and return that.

    An exception of ``condition`` ends the wait. If ``timeout`` seconds pass, an AssertionError
    names ``what`` did not come and the condition's last result.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {timeout} s; last answer: {value!r}")
        time.sleep(interval)
