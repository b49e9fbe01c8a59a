"""What a simulation runs on: documents, and the needs that some of them serve."""

from collections.abc import Sequence
from dataclasses import dataclass

from retrail_runtime.kafka import record_size
from schemas.documents import Document
from schemas.errors import InputError
from schemas.topics import MAX_EVENT_BYTES


@dataclass(frozen=True, slots=True)
class Need:
    """What someone wants to know.

    Attributes:
        need_id: its name in the corpus.
        text: the need in words.
        relevant: grade of each document that serves it (1 where relevance is yes or no).
    """

    need_id: str
    text: str
    relevant: dict[str, int]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents and two disjoint sets of needs.

    Attributes:
        name: for reports.
        training: needs of the agents that are learned from.
        unseen: needs that no trajectory is ever about; all figures are measured on these.
    """

    name: str
    documents: tuple[Document, ...]
    training: tuple[Need, ...]
    unseen: tuple[Need, ...]

    @property
    def needs(self) -> int:
        """How many needs there are in all."""
        return len(self.training) + len(self.unseen)


def require_fitting(documents: Sequence[Document]) -> None:
    """Check before the work that the topic takes every document.

    Raises:
        InputError: one is too large.
    """
    for document in documents:
        size = record_size(document.doc_id.encode(), document.to_json())
        if size > MAX_EVENT_BYTES:
            raise InputError(
                f"Document {document.doc_id} has {size:,} bytes; the topic takes "
                f"{MAX_EVENT_BYTES:,}. Split it into several documents."
            )
