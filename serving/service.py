"""Searches and opens documents for agents, and publishes these calls as trajectory events.

The HTTP API and the MCP server are built on it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import structlog

from schemas.errors import MilvusUnavailableError, RetrailError
from schemas.settings import Settings
from serving import metrics
from serving.async_retriever import AsyncRetriever
from serving.problems import Failure, RefusedError
from serving.sessions import Caller, Session, Sessions, TrajectoryPublisher
from serving.tools import OpenedDocument, SearchAnswer

SWEEP_SECONDS = 5.0
"""Seconds between two checks for idle trajectories and for a new model."""
PROBE_SECONDS = 2.0
"""Seconds after which a readiness probe fails."""

log = structlog.get_logger(__name__)


UNKNOWN_DOCUMENT = Failure(
    404,
    "No such document",
    "The index holds no document with this id. Use a doc_id of a search hit.",
)
BUSY = Failure(503, "Too many requests at once", "The server is busy. Repeat the request.", 1)


class Slots:
    """Limits the calls that are answered at once, in all and of each caller.

    A caller may hold ``most`` slots divided by the number of callers that hold any. An eighth of
    the slots is reserved for the first call of callers that hold none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[object] = Counter()

    @contextmanager
    def taken(self, caller: object) -> Iterator[None]:
        """Hold a slot.

        Raises:
            RefusedError: there is no slot for this call now.
        """
        own, free = self._taken[caller], self._most - self._taken.total()
        reserved = self._most // 8 if own else 0
        share = max(1, self._most // len(self._taken.keys() | {caller}))
        if free <= reserved or own >= share:
            raise RefusedError(BUSY)
        self._taken[caller] += 1
        try:
            with metrics.REQUESTS_IN_PROGRESS.track_inprogress():
                yield
        finally:
            self._taken[caller] -= 1
            if not self._taken[caller]:
                del self._taken[caller]


class SearchService:
    """Answers agents, and publishes each answered call as an event of the caller's trajectory.

    A ``reasoning`` is published before the event of the call that carries it, so it is about the
    document opened by the call before. A call that failed publishes nothing, so that repeating it
    repeats no event.
    """

    def __init__(
        self, settings: Settings, retriever: AsyncRetriever, publisher: TrajectoryPublisher
    ) -> None:
        self._retriever = retriever
        self._probe: asyncio.Task[int] | None = None
        self._was_ready: bool | None = None
        self._slots = Slots(settings.serve_concurrency)
        self.sessions = Sessions(
            publisher,
            idle_seconds=settings.mine_idle_seconds / 2,
            most=settings.serve_max_trajectories,
        )

    async def search(
        self,
        caller: Caller,
        query: str,
        k: int,
        reasoning: str | None = None,
        *,
        texts: bool = False,
    ) -> SearchAnswer:
        """The ``k`` nearest documents of a query; ``texts``: with their whole texts.

        Raises:
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be searched now.
            RefusedError: too many calls are being answered.
        """
        with self._slots.taken(caller.who), metrics.REQUEST_SECONDS.labels("search").time():
            result = await self._retriever.search(query, k)
            session = self._session(caller, reasoning)
            session.searched(query, result)
            return SearchAnswer.of(result, session.trajectory_id, texts=texts)

    async def open(
        self, caller: Caller, doc_id: str, reasoning: str | None = None
    ) -> OpenedDocument:
        """A whole document.

        Raises:
            RefusedError: there is none, and its reasoning was published nevertheless; or too many
                calls are being answered.
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be opened now.
        """
        with self._slots.taken(caller.who), metrics.REQUEST_SECONDS.labels("open").time():
            document = await self._retriever.open(doc_id)
            session = self._session(caller, reasoning)
            if document is None:
                raise RefusedError(UNKNOWN_DOCUMENT, session.trajectory_id)
            session.opened(doc_id)
            return OpenedDocument.of(document, session.trajectory_id)

    async def ready(self) -> int:
        """The version that answers searches.

        Logs when the answer changes, not at each probe.

        Raises:
            MilvusUnavailableError: nothing can be searched now, or there is no answer within
                :data:`PROBE_SECONDS`.
            NoIndexError, ModelError: nothing can be searched now.
        """
        # One check at a time for all probes: hanging ones must not use up the threads.
        if self._probe is None or self._probe.done():
            self._probe = self._asked()
        try:
            return await asyncio.wait_for(asyncio.shield(self._probe), PROBE_SECONDS)
        except TimeoutError as error:
            raise MilvusUnavailableError(
                "The index does not answer now, or its model is being loaded."
            ) from error

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Load the model, and end idle trajectories meanwhile; at the end, all of them."""
        self._probe = self._asked()
        sweep = asyncio.create_task(self._sweep())
        try:
            yield self
        finally:
            sweep.cancel()
            self._probe.cancel()
            await asyncio.gather(sweep, self._probe, return_exceptions=True)
            await self._retriever.aclose()
            self.sessions.end_all()

    def _asked(self) -> asyncio.Task[int]:
        task = asyncio.create_task(self._version())
        # It may fail when no probe waits for it any more.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _version(self) -> int:
        try:
            version = await self._retriever.version()
        except RetrailError as error:
            if self._was_ready is not False:
                log.warning("nothing can be searched now", reason=str(error))
            self._was_ready = False
            raise
        if not self._was_ready:
            log.info("ready to search", version=version)
        self._was_ready = True
        return version

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self._probe is None or self._probe.done():
                # Without searches too, a new model is loaded before it is needed.
                self._probe = self._asked()
            if ended := self.sessions.end_idle():
                log.info("idle trajectories ended", count=ended)

    def _session(self, caller: Caller, reasoning: str | None) -> Session:
        session = self.sessions.of(caller)
        session.reasoned(reasoning)
        return session
