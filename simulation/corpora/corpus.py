"""What a simulation runs on: documents, and the needs that some of them serve."""

from dataclasses import dataclass

from schemas.documents import Document


@dataclass(frozen=True, slots=True)
class Need:
    """What someone wants to know.

    Attributes:
        need_id: its name in the corpus.
        text: the need in words.
        relevant: gain of each document that serves it (1.0 where relevance is yes or no).
    """

    need_id: str
    text: str
    relevant: dict[str, float]


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
