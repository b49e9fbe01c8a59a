"""Searching and opening documents for agents, and publishing that they did.

The HTTP API and the MCP server are two faces of this.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog

from schemas.errors import MilvusUnavailableError, RetrailError
from schemas.settings import Settings
from serving import metrics
from serving.async_retriever import AsyncRetriever
from serving.problems import UnknownDocumentError
from serving.sessions import Caller, Session, Sessions, TrajectoryPublisher
from serving.tools import OpenedDocument, SearchAnswer

SWEEP_SECONDS = 5.0
"""Between two looks for trajectories that have been silent for too long."""
PROBE_SECONDS = 2.0
"""How long a question about readiness may take."""

log = structlog.get_logger(__name__)


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
        """
        with metrics.REQUEST_SECONDS.labels("search").time():
            result = await self._retriever.search(query, k)
            session = self._session(caller, reasoning)
            session.searched(query, result)
            return SearchAnswer.of(result, session.trajectory_id, texts=texts)

    async def open(
        self, caller: Caller, doc_id: str, reasoning: str | None = None
    ) -> OpenedDocument:
        """A whole document.

        Raises:
            UnknownDocumentError: there is none; its reasoning was published nevertheless.
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be opened now.
        """
        with metrics.REQUEST_SECONDS.labels("open").time():
            document = await self._retriever.open(doc_id)
            session = self._session(caller, reasoning)
            if document is None:
                raise UnknownDocumentError(doc_id, session.trajectory_id)
            session.opened(doc_id)
            return OpenedDocument.of(document, session.trajectory_id)

    async def ready(self) -> int:
        """The version that searches are answered by; loads its model if need be.

        Logs when the answer changes, not each time: probes come every few seconds.

        Raises:
            MilvusUnavailableError: nothing can be searched now, or there is no answer within
                :data:`PROBE_SECONDS`.
            NoIndexError, ModelError: nothing can be searched now.
        """
        # One question at a time, however many ask: a hanging one must not use up the threads.
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
        """Load the model, and end silent trajectories, meanwhile; at the end, all of them."""
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
        # Nobody may be waiting any more when it fails.
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
            if ended := self.sessions.end_idle():
                log.info("silent trajectories ended", count=ended)

    def _session(self, caller: Caller, reasoning: str | None) -> Session:
        session = self.sessions.of(caller)
        session.reasoned(reasoning)
        return session
