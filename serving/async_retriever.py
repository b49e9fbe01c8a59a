"""The retriever for asyncio; concurrent queries are encoded and searched together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

from schemas.documents import Document
from schemas.errors import MilvusUnavailableError, ModelError, NoIndexError, RetrailError
from serving import metrics

if TYPE_CHECKING:
    from serving.retriever import Retriever, SearchResult

Q = TypeVar("Q")
A = TypeVar("A")

MAX_BATCH = 64
"""Queries that are encoded and searched together."""
CONCERN_ALL = (NoIndexError, MilvusUnavailableError, ModelError)
"""Errors of all queries of a batch; others may concern those of limited tenants only."""
OPENING_THREADS = 8
"""Documents that are fetched at the same time."""


class _Query(NamedTuple):
    text: str
    k: int
    tenant: str | None


class AsyncRetriever:
    """An asyncio front of :class:`~serving.retriever.Retriever`, for one event loop.

    Queries that arrive during a search are encoded and searched together after it: see
    :class:`Batcher`.

    Args:
        seconds: after this time without an answer a call raises MilvusUnavailableError; the time
            that it waits for the searches before it counts.

    Example::

        async with AsyncRetriever(Retriever(settings), seconds=10) as retriever:
            result = await retriever.search("how to parse a date", k=5)
    """

    def __init__(self, retriever: "Retriever", *, seconds: float) -> None:
        self._retriever, self._seconds = retriever, seconds
        self._batches: Batcher[_Query, SearchResult] = Batcher(
            self._search_in_thread, common=CONCERN_ALL
        )
        self._searching = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._opening = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="open")

    async def search(self, query: str, k: int = 10, tenant: str | None = None) -> "SearchResult":
        """The ``k`` nearest documents of a query; see :meth:`.Retriever.search`.

        Raises:
            NoTenantsError: see :meth:`.Retriever.search`.
            NoIndexError: nothing has been built for this retriever.
            MilvusUnavailableError: Milvus does not answer, or there is no answer in time.
            ModelError: the model of the index cannot be loaded.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        return await self._in_time(self._batches.ask(_Query(query, k, tenant)))

    async def open(self, doc_id: str, tenant: str | None = None) -> Document | None:
        """The document; ``None`` if there is none that the tenant may see.

        Raises:
            As :meth:`search`.
        """
        return await self._in_time(
            self._loop.run_in_executor(self._opening, self._retriever.open, doc_id, tenant)
        )

    async def version(self) -> int:
        """The version that answers searches now, confirmed by Milvus; its model is loaded.

        Raises:
            As :meth:`search`.
        """
        return await self._in_time(
            self._loop.run_in_executor(self._opening, self._retriever.version)
        )

    async def aclose(self) -> None:
        """Close the retriever; calls in progress fail."""
        await asyncio.to_thread(self._retriever.close)
        await self._batches.close()
        for pool in (self._searching, self._opening):
            pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        """The retriever itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    async def _in_time(self, answer: Awaitable[A]) -> A:
        try:
            return await asyncio.wait_for(answer, self._seconds)
        except TimeoutError as error:
            raise MilvusUnavailableError(
                f"No answer within {self._seconds:g} s (RETRAIL_SERVE_DEADLINE_SECONDS)."
            ) from error

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def _search_in_thread(self, queries: list[_Query]) -> "list[SearchResult]":
        return await self._loop.run_in_executor(self._searching, self._search, queries)

    def _search(self, queries: list[_Query]) -> "list[SearchResult]":
        metrics.BATCH_QUERIES.observe(len(queries))
        results = self._retriever.search_many(
            [one.text for one in queries],
            max(one.k for one in queries),
            [one.tenant for one in queries],
        )
        return [
            replace(result, hits=result.hits[: one.k])
            for one, result in zip(queries, results, strict=True)
        ]


class Batcher(Generic[Q, A]):
    """Answers questions in batches, one batch at a time; belongs to one event loop.

    A question that finds no batch in progress is answered at once, alone: batching adds no delay.
    Under load batches grow, since all questions that arrived meanwhile are answered together. A
    question whose caller was cancelled before its batch started is dropped.

    Args:
        answer: returns the answers of a batch, in its order.
        largest: maximum number of questions in a batch.
        common: exceptions that concern a batch as a whole. After any other one its questions are
            answered one by one, so that only the bad one fails.

    Example::

        batcher = Batcher(encode, largest=64)
        vector = await batcher.ask("how to parse a date")
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], Awaitable[Sequence[A]]],
        *,
        largest: int = MAX_BATCH,
        common: tuple[type[Exception], ...] = (RetrailError,),
    ) -> None:
        self._answer, self._largest, self._common = answer, largest, common
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def ask(self, question: Q) -> A:
        """The answer, or what answering raised.

        Raises:
            RuntimeError: the batcher was closed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Accept no more questions, and answer the waiting ones."""
        self._closed = True
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while self._waiting:
            wanted = [(q, future) for q, future in self._waiting if not future.cancelled()]
            batch, self._waiting = wanted[: self._largest], wanted[self._largest :]
            if batch:
                await self._serve(batch)

    async def _serve(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, self._common):
                for one in batch:
                    await self._serve([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
