"""Searching and opening documents for agents, and publishing that they did.

The HTTP API and the MCP server are two faces of this.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Self

import structlog
from pydantic import BaseModel, Field

from schemas.base import DocId, Version
from schemas.errors import MilvusUnavailableError, RetrailError
from schemas.settings import Settings
from serving.api import server_metrics as metrics
from serving.search.async_retriever import AsyncRetriever
from serving.trajectories.sessions import Caller, Session, Sessions, TrajectoryPublisher

if TYPE_CHECKING:
    from serving.search.retriever import Hit

MAX_K = 100
MAX_QUERY = 4_000
"""Characters; an encoder reads a few hundred tokens."""
MAX_REASONING = 200_000
"""Characters of a reasoning or an answer."""
SWEEP_SECONDS = 5.0
"""Between two looks for trajectories that have been silent for too long."""
PROBE_SECONDS = 2.0
"""How long a question about readiness may take."""

log = structlog.get_logger(__name__)


class ShownHit(BaseModel):
    """A hit as an agent sees it; the whole text is there when it opens the document."""

    doc_id: DocId
    rank: Annotated[int, Field(ge=1, description="1 is the best")]
    score: Annotated[
        float,
        Field(
            description="cosine similarity, at most 1; of a hybrid index the sum of 1 / (60 + "
            "rank) by vectors and by words, at most 0.033"
        ),
    ]
    title: str
    snippet: Annotated[str, Field(description="beginning of the text")]


class SearchAnswer(BaseModel):
    """Hits by rank, the release that found them, and the trajectory that the search is part of."""

    hits: list[ShownHit]
    retriever_version: Version
    trajectory_id: str


class OpenedDocument(BaseModel):
    """A document, and the trajectory that its opening is part of."""

    doc_id: DocId
    title: str
    text: str
    trajectory_id: str


class UnknownDocumentError(RetrailError):
    """An agent opened a document that the index does not hold."""

    def __init__(self, message: str, trajectory_id: str) -> None:
        super().__init__(message)
        self.trajectory_id = trajectory_id


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
        self._snippet_chars = settings.serve_snippet_chars
        self._probe: asyncio.Task[int] | None = None
        self._told_ready: bool | None = None
        self.sessions = Sessions(
            publisher,
            idle_seconds=settings.serve_idle_seconds,
            most=settings.serve_max_trajectories,
        )

    async def search(
        self, caller: Caller, query: str, k: int, reasoning: str | None = None
    ) -> SearchAnswer:
        """The ``k`` nearest documents of a query.

        Raises:
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be searched now.
        """
        with metrics.REQUEST_SECONDS.labels("search").time():
            result = await self._retriever.search(query, k)
            session = self._session(caller, reasoning)
            session.searched(query, result)
            return SearchAnswer(
                hits=[self._shown(hit) for hit in result.hits],
                retriever_version=result.retriever_version,
                trajectory_id=session.trajectory_id,
            )

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
                raise UnknownDocumentError(
                    "The index holds no document with this id. Use a doc_id that a search gave.",
                    session.trajectory_id,
                )
            session.opened(doc_id)
            return OpenedDocument(
                doc_id=document.doc_id,
                title=document.title,
                text=document.text,
                trajectory_id=session.trajectory_id,
            )

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
            if self._told_ready is not False:
                log.warning("nothing can be searched now", reason=str(error))
            self._told_ready = False
            raise
        if not self._told_ready:
            log.info("ready to search", version=version)
        self._told_ready = True
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

    def _shown(self, hit: "Hit") -> ShownHit:
        return ShownHit(
            doc_id=hit.doc_id,
            rank=hit.rank,
            score=hit.score,
            title=hit.title,
            snippet=snippet(hit.text, self._snippet_chars),
        )


def snippet(text: str, longest: int) -> str:
    """The beginning of a text, in one line; an ellipsis says that there is more.

    >>> snippet("A house\\non a hill", 10)
    'A house o…'
    """
    line = " ".join(text[: 4 * longest].split())
    return line if len(line) <= longest and len(text) <= 4 * longest else f"{line[: longest - 1]}…"
