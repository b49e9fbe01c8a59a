"""Searches and opens documents for agents, and publishes these calls as trajectory events.

The HTTP API and the MCP server are built on it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, Self

import structlog

from retrail import Publisher, Trajectory
from retrail_runtime.process import RateLimit
from schemas.errors import MilvusUnavailableError, RetrailError
from schemas.events import SESSION_END
from schemas.settings import Settings
from serving import metrics
from serving.async_retriever import AsyncRetriever
from serving.handles import Caller, Handles, Outcome
from serving.problems import Failure, RefusedError
from serving.tools import OpenedDocument, SearchAnswer

SWEEP_SECONDS = 5.0
"""Seconds between two checks for a new model."""
PROBE_SECONDS = 2.0
"""Seconds after which a readiness probe fails."""

log = structlog.get_logger(__name__)


UNKNOWN_DOCUMENT = Failure(
    404,
    "No such document",
    "The index holds no document with this id. Use a doc_id of a search hit.",
)
UNNAMED = Failure(
    400,
    "No trajectory",
    "Send the trajectory_id of the last result, or the doc_id of a hit.",
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

    The service keeps nothing about a trajectory. It answers once Kafka has acknowledged the events,
    so those of the next call, of whichever replica, come later on the log; it waits for
    ``serve_ack_seconds`` at most.

    Attributes:
        version: that answered the last check of readiness; ``None`` before.

    Args:
        secret: of the handles of trajectories.
    """

    _log_limit = RateLimit(60.0)

    def __init__(
        self,
        settings: Settings,
        retriever: AsyncRetriever,
        publisher: Publisher,
        secret: bytes,
    ) -> None:
        self.handles = Handles(secret)
        self._retriever, self._publisher = retriever, publisher
        self._ack_seconds, self._by_trace = settings.serve_ack_seconds, settings.serve_traceparent
        self._probe: asyncio.Task[int] | None = None
        self._was_ready: bool | None = None
        self.version: int | None = None
        self._slots = Slots(settings.serve_concurrency)

    def trajectory_of(
        self,
        principal: str,
        given: str | None,
        traceparent: str | None = None,
        *,
        begins: bool = True,
    ) -> str:
        """The trajectory of a call: what its client sent, else its W3C trace if that counts, else a
        new one.

        Args:
            begins: whether a call that names none begins one.

        Raises:
            RefusedError: this caller may not use what it sent, or it names none.
        """
        if given is not None:
            return self.handles.given(principal, given)
        traced = self.handles.traced(principal, traceparent) if self._by_trace else None
        if traced is None and not begins:
            raise RefusedError(UNNAMED)
        return traced or self.handles.drawn(principal)

    async def search(
        self,
        caller: Caller,
        query: str,
        k: int,
        reasoning: str | None = None,
        *,
        texts: bool = False,
        publish: bool = True,
    ) -> SearchAnswer:
        """The ``k`` nearest documents of a query that the caller may see.

        Args:
            texts: with their whole texts.
            publish: as an event of the caller's trajectory.

        Raises:
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be searched now.
            NoTenantsError: the index cannot be limited to what the caller may see.
            RefusedError: too many calls are being answered.
        """
        with metrics.timed("search", caller.trajectory_id):
            with self._slots.taken(caller.who):
                result = await self._retriever.search(query, k, caller.sees)
            if publish:
                trajectory = self._continued(caller, reasoning)
                trajectory.search(query, result.hits, retriever_version=result.retriever_version)
                await self._acknowledged(trajectory)
            return SearchAnswer.of(result, caller.trajectory_id, texts=texts)

    async def open(
        self, caller: Caller, doc_id: str, reasoning: str | None = None
    ) -> OpenedDocument:
        """A whole document; one that the caller may not see does not exist.

        Raises:
            RefusedError: there is none, and its reasoning was published nevertheless; or too many
                calls are being answered.
            NoIndexError, MilvusUnavailableError, ModelError: nothing can be opened now.
        """
        with metrics.timed("open", caller.trajectory_id):
            with self._slots.taken(caller.who):
                document = await self._retriever.open(doc_id, caller.sees)
            trajectory = self._continued(caller, reasoning)
            if document is not None:
                trajectory.browse(doc_id)
            await self._acknowledged(trajectory)
            if document is None:
                raise RefusedError(UNKNOWN_DOCUMENT, caller.trajectory_id)
            return OpenedDocument.of(document, caller.trajectory_id)

    async def reason(
        self,
        caller: Caller,
        text: str | None,
        *,
        tokens: int | None = None,
        verdict: Literal["relevant", "irrelevant"] | None = None,
        about: str | None = None,
    ) -> None:
        """Publish a reasoning; ``about``: the document, by default the one opened before it."""
        trajectory = self._continued(caller)
        trajectory.reason(text, tokens=tokens, verdict=verdict, about=about)
        await self._acknowledged(trajectory)

    async def end(
        self, caller: Caller, outcome: Outcome, answer: str | None, reasoning: str | None
    ) -> None:
        """End a caller's trajectory; a later search begins another one under the same id."""
        trajectory = self._continued(caller, reasoning)
        if answer is not None:
            trajectory.answer(answer)
        trajectory.end(outcome)
        await self._acknowledged(trajectory)

    def leave(self, caller: Caller) -> None:
        """The caller's session is over: its trajectory closes sooner if no call follows."""
        self._continued(caller).other(SESSION_END)

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
        """Load the model, and later ones once they are live."""
        self._probe = self._asked()
        sweep = asyncio.create_task(self._sweep())
        try:
            yield self
        finally:
            sweep.cancel()
            self._probe.cancel()
            await asyncio.gather(sweep, self._probe, return_exceptions=True)
            await self._retriever.aclose()

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
        self._was_ready, self.version = True, version
        return version

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self._probe is None or self._probe.done():
                # Without searches too, a new model is loaded before it is needed.
                self._probe = self._asked()

    def _continued(self, caller: Caller, reasoning: str | None = None) -> Trajectory:
        trajectory = self._publisher.trajectory(
            caller.trajectory_id,
            agent=caller.agent.name,
            model=caller.agent.model,
            tenant=caller.agent.tenant,
            numbered=False,
        )
        if reasoning:
            trajectory.reason(reasoning)
        return trajectory

    async def _acknowledged(self, trajectory: Trajectory) -> None:
        """Wait until the trajectory's events are on the log, or for too long."""
        if trajectory.acknowledged is None:
            return
        acknowledged = asyncio.wrap_future(trajectory.acknowledged)
        # Unlike wait_for, wait does not cancel what the delivery thread will set.
        await asyncio.wait([acknowledged], timeout=self._ack_seconds)
        if not acknowledged.done() or not acknowledged.result():
            metrics.UNACKNOWLEDGED.inc()
            if self._log_limit.allows():
                log.warning("answering although Kafka has not acknowledged the events of the call")
