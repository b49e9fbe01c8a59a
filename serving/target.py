"""The search target: a collection with the model that built it."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from retrail_runtime.milvus import Build
from retrail_runtime.retry import Deadline
from schemas.errors import ModelError
from schemas.releases import Model
from schemas.settings import Settings

if TYPE_CHECKING:
    from trainer.model.encoder import Encoder

RELOAD_SECONDS = 10.0
"""After a model could not be loaded, seconds until the next attempt."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """A build and the encoder of its model: a query vector never meets another model's space."""

    build: Build
    encoder: "Encoder"


def load_encoder(settings: Settings, build: Build) -> "Encoder":
    """The encoder of a build's model, from the registry.

    Raises:
        ModelError: it is not there, or its digest is not the build's.
    """
    # Importing torch takes seconds, and without an index it is not needed.
    from trainer.registry.registry import Registry

    return Registry.of(settings).load(Model(location=build.location, digest=build.digest))


class Loading:
    """A build whose model is being loaded in a thread of its own."""

    def __init__(self, build: Build) -> None:
        self.build = build
        self._future: Future[Target] = Future()
        self._retry_at = math.inf

    def run(
        self, load: "Callable[[], Encoder]", loaded: "Callable[[Loading, Target], None]"
    ) -> None:
        """Load the model; what it raises is raised by :meth:`result`."""
        try:
            found = Target(self.build, load())
        except Exception as error:
            where = {"collection": self.build.collection, "version": self.build.version}
            log.error("cannot load the model of the index", error=str(error), **where)
            self._retry_at = time.monotonic() + RELOAD_SECONDS
            self.give_up(error)
            return
        loaded(self, found)
        with suppress(InvalidStateError):
            self._future.set_result(found)

    def has_failed(self) -> bool:
        """Whether the model could not be loaded, long enough ago to try again."""
        return time.monotonic() >= self._retry_at

    def result(self, deadline: Deadline) -> Target:
        """The loaded target.

        Raises:
            ModelError: the model cannot be loaded, or is still being loaded at the deadline.
        """
        try:
            return self._future.result(deadline.remaining)
        except TimeoutError as error:
            raise ModelError(
                f"The model of {self.build.collection} is being loaded. Repeat the search.",
                collection=self.build.collection,
                version=self.build.version,
            ) from error

    def give_up(self, error: Exception | None = None) -> None:
        """Wait no longer."""
        with suppress(InvalidStateError):
            self._future.set_exception(error or ModelError("The retriever was closed."))
