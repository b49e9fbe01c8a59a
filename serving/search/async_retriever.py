"""The retriever for programs with an event loop; concurrent queries share encodings."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from schemas.documents import Document
from schemas.settings import Settings
from serving import metrics
from serving.search.batching import Batcher

if TYPE_CHECKING:
    from serving.search.retriever import Retriever, SearchResult

MAX_BATCH = 64
"""Queries that are encoded and searched together."""
OPENING_THREADS = 8
"""Documents that are fetched at the same time."""


class _Query(NamedTuple):
    text: str
    k: int


class AsyncRetriever:
    """:class:`~serving.search.retriever.Retriever`, awaited; belongs to one event loop.

    Queries that arrive while others are searched wait for those, then are encoded and searched
    together: see :class:`~serving.search.batching.Batcher`.

    Example::

        async with await AsyncRetriever.connect(schemas.settings.load()) as retriever:
            result = await retriever.search("how to parse a date", k=5)
    """

    def __init__(self, retriever: "Retriever", *, max_batch: int = MAX_BATCH) -> None:
        self._retriever = retriever
        self._batches: Batcher[_Query, SearchResult] = Batcher(
            self._search_in_thread, largest=max_batch
        )
        self._searching = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._opening = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="open")

    @classmethod
    async def connect(cls, settings: Settings) -> Self:
        """One that searches the live index.

        Raises:
            MilvusUnavailableError: Milvus does not answer now.
        """
        from serving.search.retriever import Retriever

        return cls(await asyncio.to_thread(Retriever, settings))

    async def search(self, query: str, k: int = 10) -> "SearchResult":
        """The ``k`` nearest documents of a query.

        Raises:
            NoIndexError: nothing has been built for this retriever.
            MilvusUnavailableError: Milvus does not answer.
            ModelError: the model of the index cannot be loaded.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        return await self._batches.ask(_Query(query, k))

    async def open(self, doc_id: str) -> Document | None:
        """The document; ``None`` without one.

        Raises:
            As :meth:`search`.
        """
        return await self._loop.run_in_executor(self._opening, self._retriever.open, doc_id)

    async def version(self) -> int:
        """The version that answers searches now; loads its model if need be.

        Raises:
            As :meth:`search`.
        """
        return await self._loop.run_in_executor(self._opening, self._retriever.version)

    async def aclose(self) -> None:
        """Answer the searches in progress, then close the retriever."""
        await self._batches.close()
        for pool in (self._searching, self._opening):
            await asyncio.to_thread(pool.shutdown)
        await asyncio.to_thread(self._retriever.close)

    async def __aenter__(self) -> Self:
        """The retriever itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.aclose()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def _search_in_thread(self, queries: list[_Query]) -> "list[SearchResult]":
        return await self._loop.run_in_executor(self._searching, self._search, queries)

    def _search(self, queries: list[_Query]) -> "list[SearchResult]":
        metrics.BATCH_QUERIES.observe(len(queries))
        results = self._retriever.search_many(
            [one.text for one in queries], max(one.k for one in queries)
        )
        return [
            replace(result, hits=result.hits[: one.k])
            for one, result in zip(queries, results, strict=True)
        ]
