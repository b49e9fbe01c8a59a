"""The awaited retriever: batches of one search, each query its own k."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from schemas.errors import MilvusUnavailableError, NoIndexError, NoTenantsError
from serving.async_retriever import AsyncRetriever, Batcher
from serving.retriever import SearchResult
from tests.serving.fakes import TEXTS, FakeRetriever
from tests.waiting import eventually


def test_concurrent_queries_share_a_search_and_keep_their_k() -> None:
    async def go() -> None:
        fake = FakeRetriever()
        async with AsyncRetriever(fake, seconds=30) as retriever:
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
        async with AsyncRetriever(fake, seconds=30) as retriever:
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


def test_of_one_batch_only_limited_queries_are_refused_by_an_index_without_tenants() -> None:
    async def go() -> None:
        fake = FakeRetriever()
        fake.has_tenants = False
        async with AsyncRetriever(fake, seconds=30) as retriever:
            fake.goes_on.clear()
            first = asyncio.create_task(retriever.search("gzip"))
            await asyncio.to_thread(eventually, lambda: fake.batches)
            free = asyncio.create_task(retriever.search("gzip", 1))
            limited = asyncio.create_task(retriever.search("gzip", 1, "a"))
            await asyncio.sleep(0)
            fake.goes_on.set()
            await first
            assert (await free).hits[0].doc_id == "gzip"
            with pytest.raises(NoTenantsError):
                await limited
        assert (["gzip", "gzip"], 1) in fake.batches

    asyncio.run(go())


def test_a_document_is_opened_while_a_search_takes_long() -> None:
    async def go() -> None:
        fake = FakeRetriever()
        async with AsyncRetriever(fake, seconds=30) as retriever:
            fake.goes_on.clear()
            search = asyncio.create_task(retriever.search("gzip"))
            await asyncio.to_thread(eventually, lambda: fake.batches)
            assert await asyncio.wait_for(retriever.open("gzip"), 10) is not None
            assert not search.done()
            fake.goes_on.set()
            await search

    asyncio.run(go())


def test_a_call_that_waits_too_long_fails_also_behind_another_one() -> None:
    async def go() -> None:
        fake = FakeRetriever()
        async with AsyncRetriever(fake, seconds=0.2) as retriever:
            fake.goes_on.clear()
            try:
                searches = [retriever.search(query) for query in ("gzip", "zip", "json")]
                for failure in await asyncio.gather(*searches, return_exceptions=True):
                    assert isinstance(failure, MilvusUnavailableError)
            finally:
                fake.goes_on.set()
            assert (await retriever.search("gzip")).retriever_version == 1

    asyncio.run(go())


# -- Batches ---------------------------------------------------------------------------------------


class Doubling:
    """Doubles numbers, once it is let; ``13`` breaks it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = asyncio.Event()
        self.may.set()
        self.failure: Exception | None = None

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.may.wait()
        if self.failure:
            raise self.failure
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * n for n in numbers]


def run(test: Callable[[Doubling], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        await test(Doubling())

    asyncio.run(go())


async def turns(count: int = 5) -> None:
    """Let other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_one_alone_leaves_at_once_and_those_meanwhile_leave_together() -> None:
    async def test(double: Doubling) -> None:
        double.may.clear()
        batcher = Batcher(double, largest=3)
        first = asyncio.create_task(batcher.ask(1))
        await turns()
        assert double.batches == [[1]]
        others = [asyncio.create_task(batcher.ask(n)) for n in (2, 3, 4, 5)]
        await turns()
        assert double.batches == [[1]]
        double.may.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10]
        assert double.batches == [[1], [2, 3, 4], [5]]
        assert await batcher.ask(6) == 12

    run(test)


def test_a_bad_question_fails_alone() -> None:
    async def test(double: Doubling) -> None:
        double.may.clear()
        batcher = Batcher(double)
        tasks = [asyncio.create_task(batcher.ask(n)) for n in (1, 2, 13, 3)]
        await turns()
        double.may.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answers[0], answers[1], answers[3]] == [2, 4, 6]
        assert isinstance(answers[2], ValueError)

    run(test)


def test_what_concerns_all_is_not_tried_for_each() -> None:
    async def test(double: Doubling) -> None:
        double.may.clear()
        double.failure = NoIndexError("none")
        batcher = Batcher(double)
        tasks = [asyncio.create_task(batcher.ask(n)) for n in (1, 2, 3)]
        await turns()
        double.may.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, NoIndexError) for answer in answers)
        assert len(double.batches) <= 2

    run(test)


def test_who_left_is_not_asked_for_and_holds_up_nobody() -> None:
    async def test(double: Doubling) -> None:
        double.may.clear()
        batcher = Batcher(double)
        away, waits = (asyncio.create_task(batcher.ask(n)) for n in (1, 2))
        await turns()
        gone = asyncio.create_task(batcher.ask(3))
        stays = asyncio.create_task(batcher.ask(4))
        await turns()
        away.cancel()
        gone.cancel()
        await turns()
        double.may.set()
        assert await asyncio.gather(waits, stays) == [4, 8]
        assert [3] not in double.batches
        assert double.batches[-1] == [4]

    run(test)


def test_a_closed_one_answers_what_waits_and_takes_no_more() -> None:
    async def test(double: Doubling) -> None:
        batcher = Batcher(double)
        waiting = asyncio.create_task(batcher.ask(1))
        await turns(1)
        await batcher.close()
        assert await waiting == 2
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.ask(2)

    run(test)
