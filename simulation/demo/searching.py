"""The live retriever, as agents and measurements use it."""

import os
import time
from collections.abc import Callable, Sequence

import torch

from consumers.indexing.milvus import Milvus
from schemas.errors import NoIndexError, RetrailError
from schemas.settings import Settings
from serving.search.retriever import Hit, Retriever

HITS = 10
PATIENCE = 600.0
INTERVAL = 0.2


class NotRefreshed(RetrailError):
    """The index of a release does not come."""


def one_core() -> None:
    """Encode with one thread each: for a dozen tokens, more of them only wait for each other.

    Holds for threads that have not used torch yet, and for the calling one.
    """
    torch.set_num_threads(1)


def every_core() -> None:
    """Let torch use every core that this process may run on."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def search_many(retriever: Retriever) -> Callable[[Sequence[str]], list[list[Hit]]]:
    """The ten best hits of each of several queries."""
    return lambda queries: [found.hits for found in retriever.search_many(queries, HITS)]


def wait_until_indexed(
    settings: Settings, documents: int, *, on_wait: Callable[[int], None]
) -> None:
    """Return once an index serves that holds so many documents.

    Args:
        on_wait: called several times a second with how many it holds; what it raises ends the
            waiting.

    Raises:
        NotRefreshed: for ten minutes nothing was added.
        RetrailError: Milvus failed.
    """
    milvus = Milvus(settings)
    held, moved_at = 0, time.monotonic()
    while True:
        served = milvus.aliased()
        builds = {build.collection: build for build in milvus.builds()}
        found = sum(milvus.count(build) for build in builds.values())
        if served in builds and milvus.count(builds[served]) == documents:
            return
        if found != held:
            held, moved_at = found, time.monotonic()
        if time.monotonic() - moved_at > PATIENCE:
            raise NotRefreshed(
                f"The index holds {held:,} of {documents:,} documents and has not grown for "
                f"{PATIENCE:.0f} s. The index worker's log says why."
            )
        on_wait(min(found, documents))
        time.sleep(INTERVAL)


def wait_until_live(retriever: Retriever, version: int, *, on_wait: Callable[[], None]) -> None:
    """Return once searches are answered by a version.

    Args:
        on_wait: called several times a second; what it raises ends the waiting.

    Raises:
        NotRefreshed: it does not come within ten minutes.
        RetrailError: the retriever fails.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = retriever.version()
        except NoIndexError:
            found = 0
        if found == version:
            return
        if time.monotonic() > deadline:
            raise NotRefreshed(
                f"Version {version} does not serve {PATIENCE:.0f} s after its release; version "
                f"{found} does. The index worker's log says why."
            )
        on_wait()
        time.sleep(INTERVAL)
