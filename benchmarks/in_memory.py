"""The loop without servers: exact search in memory, events mined as `retrail mine` mines files.

Agents, judge, fold, selection and training are those of the whole system. Benchmarks and tests turn
it many times, where starting brokers would take longer than the turns.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.documents import Document
from schemas.events import Event
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from serving.retriever import Hit as FoundHit
from simulation.scripted import HITS
from streams.importing.importer import Importer
from streams.importing.offline import mine
from trainer.data import examples
from trainer.data.draws import draw, draw_of
from trainer.model.encoder import Encoder, Vectors

TOPIC = "pairs"

Choose = Callable[[str, NDArray[np.intp]], Iterable[int]]


class ExactIndex:
    """All documents as one encoder sees them."""

    def __init__(
        self, encoder: Encoder, documents: Sequence[Document], vectors: Vectors | None = None
    ) -> None:
        """Encode the documents, unless their ``vectors`` are known."""
        self.encoder = encoder
        self.documents = documents
        if vectors is None:
            vectors = encoder.encode_documents([each.embedded_text() for each in documents])
        self.vectors = vectors

    def search_many(
        self, queries: Sequence[str], choose: Choose = lambda query, order: order[:HITS].tolist()
    ) -> list[list[FoundHit]]:
        """The ten best hits of each query; ties go by position, as scores are rounded.

        Args:
            choose: gets a query and the positions of all documents by rank; returns what to show.
        """
        scores = (self.encoder.encode_queries(queries) @ self.vectors.T).round(6)
        best = np.argsort(-scores, axis=1, kind="stable")
        return [
            [
                FoundHit(document.doc_id, rank, float(row[i]), document.title, document.text)
                for rank, i in enumerate(choose(query, order), start=1)
                for document in [self.documents[i]]
            ]
            for query, row, order in zip(queries, scores, best, strict=True)
        ]


def mined(trajectories: Iterable[Sequence[Event]], settings: Settings) -> list[LabelledPair]:
    """The pairs of trajectories, by the judge and the profile of the settings."""
    with tempfile.TemporaryDirectory(prefix="retrail-events-") as folder:
        path = Path(folder) / "events.jsonl"
        with path.open("wb") as file:
            for trajectory in trajectories:
                file.writelines(event.to_json() + b"\n" for event in trajectory)
        return list(mine(Importer("events", strict=True).read([path]), settings))


class Texts:
    """Documents that are all known; what a selection and the gate read of a corpus."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = {document.doc_id: document for document in documents}

    def known(self, doc_ids: Iterable[str]) -> Mapping[str, str]:
        """The owners of those that exist."""
        wanted = self._documents.keys() & set(doc_ids)
        return {doc_id: self._documents[doc_id].owner for doc_id in wanted}

    def owners(self) -> set[str]:
        """The tenants that have documents of their own."""
        return {document.owner for document in self._documents.values()} - {""}

    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]:
        """The documents with these ids, without those that do not exist."""
        return {doc_id: self._documents[doc_id] for doc_id in self.known(doc_ids)}

    def sample(self, count: int, seed: int) -> list[str]:
        """Up to ``count`` ids."""
        return draw(self._documents, count, seed=seed, parent=0)


class Pairs:
    """Pairs as if they lay on a topic of one partition, in the order in which they were added."""

    def __init__(self) -> None:
        self._pairs: list[LabelledPair] = []

    def add(self, pairs: Iterable[LabelledPair]) -> Range:
        """Append pairs; returns where they lie."""
        start = len(self._pairs)
        self._pairs += pairs
        return Range(topic=TOPIC, partition=0, start=start, end=len(self._pairs))

    def within(self, ranges: Iterable[Range]) -> list[LabelledPair]:
        """The pairs in ``ranges``."""
        return [pair for span in ranges for pair in self._pairs[span.start : span.end]]

    def in_turn(self, ranges: Iterable[Range], start: int) -> list[LabelledPair]:
        """The pairs in ``ranges`` that could train, in the order of their draw."""
        found = examples.trainable(self.within(ranges)).pairs
        draws = {pair.pair_id: draw_of(pair.pair_id) for pair in found}
        return sorted(found, key=lambda p: (draws[p.pair_id] < start, draws[p.pair_id]))

    def get(self, pair_ids: Sequence[str]) -> list[LabelledPair]:
        """The pairs with these ids."""
        wanted = set(pair_ids)
        return [pair for pair in self._pairs if pair.pair_id in wanted]

    def repeats(self, ranges: Iterable[Range]) -> int:
        """None: mining files gives each pair once."""
        return 0
