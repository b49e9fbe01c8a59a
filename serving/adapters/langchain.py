"""Retrail as a LangChain retriever (``pip install 'retrail-server[langchain]'``)."""

from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from retrail import Trajectory

if TYPE_CHECKING:
    from serving.search.retriever import SearchResult


class RetrailRetriever(BaseRetriever):
    """Searches the live index; with a trajectory it publishes each search as an event of it.

    A document's ``page_content`` is its whole text and its ``id`` the document id; ``metadata`` has
    ``doc_id``, ``title``, ``rank``, ``score`` and ``retriever_version``. Retrail learns from which
    documents help: say so with ``trajectory.browse(document.id)`` and ``trajectory.reason(…)``, as
    ``examples/langchain_agent.py`` does.

    Args:
        retriever: a :class:`serving.search.retriever.Retriever`.
        async_retriever: a :class:`serving.search.async_retriever.AsyncRetriever` for ``ainvoke``,
        where
            concurrent queries share encodings; without one ``ainvoke`` uses a thread.
        k: how many documents.
        trajectory: of :meth:`retrail.Publisher.trajectory`. One retriever object for each task,
            then; they may share ``retriever``.

    Example::

        retriever = RetrailRetriever(retriever=Retriever(load()), k=5)
        documents = retriever.invoke("how to parse a date")
    """

    retriever: Any
    async_retriever: Any = None
    k: int = Field(default=10, ge=1)
    trajectory: Trajectory | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self._documents(query, self.retriever.search(query, self.k))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        if self.async_retriever is None:
            return await super()._aget_relevant_documents(query, run_manager=run_manager)
        return self._documents(query, await self.async_retriever.search(query, self.k))

    def _documents(self, query: str, result: "SearchResult") -> list[Document]:
        if self.trajectory is not None:
            self.trajectory.search(query, result.hits, retriever_version=result.retriever_version)
        return [
            Document(
                id=hit.doc_id,
                page_content=hit.text,
                metadata={
                    "doc_id": hit.doc_id,
                    "title": hit.title,
                    "rank": hit.rank,
                    "score": hit.score,
                    "retriever_version": result.retriever_version,
                },
            )
            for hit in result.hits
        ]
