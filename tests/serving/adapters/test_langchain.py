"""Retrail as a LangChain retriever."""

import asyncio
from typing import Any

from serving.adapters.langchain import RetrailRetriever
from serving.search.async_retriever import AsyncRetriever
from tests.serving.fakes import TEXTS, FakeRetriever


class Alone(FakeRetriever):
    """With ``search``, as the real one."""

    def search(self, query: str, k: int = 10) -> Any:
        return self.search_many([query], k)[0]


def test_documents_carry_ids_texts_and_versions() -> None:
    retriever = RetrailRetriever(retriever=Alone(version=3), k=2)
    documents = retriever.invoke("open a gzip file")
    assert [document.id for document in documents] == ["gzip", "json#0"]
    assert documents[0].page_content == TEXTS["gzip"]
    assert documents[0].metadata == {
        "doc_id": "gzip",
        "title": "gzip",
        "rank": 1,
        "score": 0.4,
        "retriever_version": 3,
    }


def test_awaited_with_and_without_an_event_loops_retriever() -> None:
    async def go() -> None:
        fake = Alone()
        alone = RetrailRetriever(retriever=fake, k=1)
        assert [d.id for d in await alone.ainvoke("gzip")] == ["gzip"]
        async with AsyncRetriever(fake) as asynchronous:
            batched = RetrailRetriever(retriever=fake, async_retriever=asynchronous, k=1)
            answers = await batched.abatch(["gzip", "archives", "javascript"])
        assert [a[0].id for a in answers] == ["gzip", "zip/file", "json#0"]

    asyncio.run(go())


def test_it_goes_into_chains() -> None:
    chain = RetrailRetriever(retriever=Alone(), k=1) | (lambda found: found[0].page_content)
    assert chain.invoke("gzip") == TEXTS["gzip"]
