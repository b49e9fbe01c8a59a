"""From documents to rows: each text is encoded once per model (:mod:`consumers.vectors`)."""

from collections.abc import Sequence

from consumers.indexing import metrics
from consumers.indexing.collection import Row
from consumers.vectors import VectorStore
from consumers.vectors import encode as vectors_of
from schemas.documents import Document, content_hash
from trainer.model.encoder import Encoder, Progress, Vectors


class Embedder:
    """Rows of one model. Safe to share between threads.

    Attributes:
        version: of the release; label of its metrics.
        dimension: of the vectors.
    """

    def __init__(self, encoder: Encoder, version: int, digest: str, store: VectorStore) -> None:
        """``digest`` is the model's."""
        self.version = version
        self.dimension = encoder.dimension
        self._encoder = encoder
        self._digest = digest
        self._store = store

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries, one row each."""
        return self._encoder.encode_queries(texts)

    def rows(self, documents: Sequence[Document], progress: Progress | None = None) -> list[Row]:
        """One row for each document, in their order; equal texts are encoded once.

        Args:
            progress: called between batches; may raise to stop.
        """
        texts = [document.embedded_text() for document in documents]
        vectors, encoded = vectors_of(self._store, self._encoder, self._digest, texts, progress)
        version = str(self.version)
        metrics.DOCUMENTS_ENCODED.labels(version).inc(encoded)
        metrics.DOCUMENTS_REUSED.labels(version).inc(len(documents) - encoded)
        return [
            Row(
                document.doc_id,
                document.title,
                document.text,
                document.fingerprint(),
                vectors[found],
                document.url or "",
                document.owner,
            )
            for document, found in zip(documents, map(content_hash, texts), strict=True)
        ]
