"""Bounded retries with exponential backoff (tenacity), and deadlines."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)


def retrying(
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[BaseException], bool],
    *,
    seconds: float,
    first: float = 0.1,
    longest: float = 2.0,
    stop: threading.Event | None = None,
    before_sleep: Callable[[RetryCallState], None] | None = None,
) -> Retrying:
    """Calls a function until it succeeds; when time is up, its last exception is raised.

    Args:
        on: the exceptions to retry after, or a predicate of them; others are raised at once.
        seconds: no retry starts later than this.
        first: seconds before the first retry; doubled each time, up to
        longest: seconds between two calls.
        stop: ends the wait early when set.
        before_sleep: called before each wait; the exception is ``state.outcome.exception()``.

    Example:
        >>> retrying(OSError, seconds=30.0)(int, "7")
        7
    """
    ended = threading.Event() if stop is None else stop
    return Retrying(
        retry=retry_if_exception_type(on)
        if isinstance(on, type | tuple)
        else retry_if_exception(on),
        stop=stop_after_delay(seconds) | stop_when_event_set(ended),
        wait=wait_exponential(multiplier=first, max=longest),
        sleep=sleep_using_event(ended),
        before_sleep=before_sleep,
        reraise=True,
    )


class Deadline:
    """One time limit for several waits in a row."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._at - time.monotonic())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside is not counted."""
        began = time.monotonic()
        yield
        self._at += time.monotonic() - began
