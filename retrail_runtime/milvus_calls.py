"""Calls to Milvus that wait for it, and what comes of them when waiting is in vain."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from pymilvus.exceptions import ParamError

from retrail_runtime import milvus
from schemas.errors import RestartRequiredError, RetrailError
from schemas.settings import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a call is repeated while Milvus does not answer."""


class CollectionLostError(RetrailError):
    """The collection of a build is not there any more."""


class Refused(RestartRequiredError):
    """Milvus answered, and it was an error."""


class NotLoaded(RestartRequiredError):
    """The collection has to be loaded first."""


class Calls:
    """Makes calls for one process; safe to share between its threads."""

    def __init__(self, settings: Settings, stop: threading.Event, patience: float) -> None:
        """Nothing is called yet.

        Args:
            stop: ends the waiting for a lost server early.
            patience: seconds that a call is repeated.
        """
        self._uri = settings.milvus_uri
        self._stop = stop
        self._patience = patience

    def __call__(
        self,
        function: Callable[..., T],
        *arguments: Any,
        repeat_refused: bool = True,
        **options: Any,
    ) -> T:
        """Call Milvus; again while it does not answer, or refuses for now (a full quota).

        Raises:
            RestartRequiredError: it did not do so in all that time.
            CollectionLostError: there is no such collection, or alias.
            NotLoaded: the collection is not in memory.
            Refused: it answered with another error, and ``repeat_refused`` is off.
        """
        options.setdefault("timeout", milvus.CALL_TIMEOUT)
        deadline = time.monotonic() + self._patience
        delay = 0.1
        while True:
            try:
                return function(*arguments, **options)
            except ParamError:
                raise
            except milvus.FAILURES as error:
                said = milvus.error_message(error)
                if milvus.is_missing(error):
                    raise CollectionLostError(said) from error
                if milvus.is_not_loaded(error):
                    raise NotLoaded(said) from error
                if not repeat_refused and not milvus.is_down(error):
                    raise Refused(said) from error
                if time.monotonic() > deadline or self._stop.is_set():
                    raise RestartRequiredError(
                        f"Milvus at {self._uri} does not do what it is asked to "
                        f"({function.__name__}: {said}). Is it still running, and has "
                        "its disk room?"
                    ) from error
                log.warning("milvus failed, trying again", call=function.__name__, error=said)
            self._stop.wait(delay)
            delay = min(2 * delay, 2.0)

    def attempt(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call Milvus once. Another worker may have done it: the caller looks at what came of it.

        What it raises is only logged.
        """
        try:
            function(*arguments, timeout=milvus.CALL_TIMEOUT)
        except milvus.FAILURES as error:
            log.debug(
                "call without effect", call=function.__name__, error=milvus.error_message(error)
            )
