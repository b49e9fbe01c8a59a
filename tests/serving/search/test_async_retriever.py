"""The awaited retriever: batches of one search, each query its own k."""

import asyncio

import pytest

from schemas.errors import NoIndexError
from serving.search.async_retriever import AsyncRetriever
from serving.search.retriever import SearchResult
from tests.serving.fakes import TEXTS, FakeRetriever
from tests.waiting import eventually


def test_concurrent_queries_share_a_search_and_keep_their_k() -> None:
    async def go() -> None:
        fake = FakeRetriever()
        async with AsyncRetriever(fake) as retriever:
            fake.goes_on.clear()
            first = asyncio.create_task(retriever.search("gzip", k=1))
            await asyncio.to_thread(eventually, lambda: fake.batches)
            others = [
                asyncio.create_task(retriever.search(query, k=k))
                for query, k in (("archives", 2), ("javascript", 3), ("gzip", 1))
            ]
            await asyncio.sleep(0)
            fake.goes_on.set()
            results: list[SearchResult] = [await first, *await asyncio.gather(*others)]
        assert fake.batches == [(["gzip"], 1), (["archives", "javascript", "gzip"], 3)]
        assert [r.hits[0].doc_id for r in results] == [
            "gzip",
            "zip/file",
            "json#0",
            "gzip",
        ]
        assert [len(r.hits) for r in results] == [1, 2, 3, 1]
        assert fake.closed

    asyncio.run(go())


def test_documents_versions_and_errors_come_through() -> None:
    async def go() -> None:
        fake = FakeRetriever(version=4)
        async with AsyncRetriever(fake) as retriever:
            opened = await retriever.open("json#0")
            assert opened is not None
            assert opened.text == TEXTS["json#0"]
            assert await retriever.open("absent") is None
            assert await retriever.version() == 4
            with pytest.raises(ValueError, match="k is 0"):
                await retriever.search("a", k=0)
            fake.failure = NoIndexError("none")
            for call in (retriever.search("a"), retriever.open("a"), retriever.version()):
                with pytest.raises(NoIndexError):
                    await call

    asyncio.run(go())


def test_a_document_is_opened_while_a_search_takes_long() -> None:
    async def go() -> None:
        fake = FakeRetriever()
        async with AsyncRetriever(fake) as retriever:
            fake.goes_on.clear()
            search = asyncio.create_task(retriever.search("gzip"))
            await asyncio.to_thread(eventually, lambda: fake.batches)
            assert await asyncio.wait_for(retriever.open("gzip"), 10) is not None
            assert not search.done()
            fake.goes_on.set()
            await search

    asyncio.run(go())
