"""What the servers and adapters need of a retriever."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from schemas.documents import Document
    from serving.search.retriever import SearchResult


class Searcher(Protocol):
    """:class:`serving.search.retriever.Retriever`, or what a test puts in its place.

    Its methods may block, and may be called from several threads at once.
    """

    def search_many(self, queries: Sequence[str], k: int = 10) -> "list[SearchResult]":
        """For each query its ``k`` nearest documents, all by one version."""

    def open(self, doc_id: str) -> "Document | None":
        """The document; ``None`` without one."""

    def version(self) -> int:
        """The version that searches are answered by now."""

    def close(self) -> None:
        """Give up connections."""
