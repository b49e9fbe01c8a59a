"""Calls that are repeated: which, how long, and what is raised in the end."""

import threading
import time
from collections.abc import Callable

import pytest

from retrail_runtime.retry import retrying


def failing(*errors: Exception) -> Callable[[], int]:
    """Raises these, one a call; then returns how often it was called."""
    left, calls = list(errors), 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if left:
            raise left.pop(0)
        return calls

    return call


def test_repeats_until_it_succeeds() -> None:
    noted: list[BaseException | None] = []
    errors = [OSError("one"), TimeoutError("two")]
    repeated = retrying(
        OSError,
        seconds=30,
        first=0.001,
        before_sleep=lambda state: noted.append(state.outcome and state.outcome.exception()),
    )
    assert repeated(failing(*errors)) == 3
    assert noted == errors


@pytest.mark.parametrize("on", [OSError, (OSError, KeyError), lambda error: "x" in str(error)])
def test_raises_other_errors_at_once(on: type[Exception]) -> None:
    with pytest.raises(ValueError, match="other"):
        retrying(on, seconds=30)(failing(ValueError("other")))


def test_raises_the_last_error_when_time_is_up() -> None:
    with pytest.raises(OSError, match="second"):
        retrying(OSError, seconds=0.01, first=0.02)(
            failing(OSError("first"), OSError("second"), OSError("third"))
        )


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(OSError, match="down"):
        retrying(OSError, seconds=60, first=60, longest=60, stop=stop)(
            failing(*[OSError("down")] * 3)
        )
    assert time.monotonic() - began < 30
