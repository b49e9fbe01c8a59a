"""From documents to rows: the encoder of one build, and the vectors that it already gave."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consumers.indexing import index_metrics as metrics
from consumers.indexing.rows import Row
from schemas.documents import Document, content_hash

REMEMBERED = 20_000
"""Vectors kept per model: 30 MB at 384 dimensions."""


class DocumentEncoder(Protocol):
    """What is needed of an encoder."""

    @property
    def dimension(self) -> int:
        """Of the vectors."""

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        progress: Callable[[int, int], None] | None = ...,
    ) -> NDArray[np.float32]:
        """One L2-normalised vector a text."""


class KnownVectors(Protocol):
    """Vectors of one model that outlive the process."""

    def get(self, hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Those that are there, by content hash."""

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep vectors."""


class Embedder:
    """Rows of one model. Equal texts are encoded once while they are remembered, here or on disk.

    Safe to share between threads.
    """

    def __init__(
        self,
        encoder: DocumentEncoder,
        version: int,
        *,
        remembered: int = REMEMBERED,
        store: KnownVectors | None = None,
    ) -> None:
        self.version = version
        self.dimension = encoder.dimension
        self._encoder = encoder
        self._remembered = remembered
        self._store = store
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def rows(
        self, documents: Sequence[Document], progress: Callable[[int, int], None] | None = None
    ) -> list[Row]:
        """One row a document, in their order.

        Args:
            progress: called between batches; may raise to give up.
        """
        texts = [document.embedded_text() for document in documents]
        hashes = [content_hash(text) for text in texts]
        vectors = self._known(hashes)
        missing = {
            found: text for found, text in zip(hashes, texts, strict=True) if found not in vectors
        }
        if missing:
            encoded = self._encoder.encode_documents(list(missing.values()), progress=progress)
            fresh = dict(zip(missing, encoded, strict=True))
            vectors |= fresh
            self._remember(fresh)
            if self._store is not None:
                self._store.put(fresh)
        version = str(self.version)
        metrics.DOCUMENTS_ENCODED.labels(version).inc(len(missing))
        metrics.DOCUMENTS_REUSED.labels(version).inc(len(documents) - len(missing))
        return [
            Row(document.doc_id, document.title, document.text, found, vectors[found])
            for document, found in zip(documents, hashes, strict=True)
        ]

    def _known(self, hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            found = {name: self._vectors[name] for name in hashes if name in self._vectors}
            for name in found:
                self._vectors.move_to_end(name)
        others = [name for name in dict.fromkeys(hashes) if name not in found]
        if others and self._store is not None:
            stored = self._store.get(others)
            self._remember(stored)
            found |= stored
        return found

    def _remember(self, fresh: dict[str, NDArray[np.float32]]) -> None:
        with self._lock:
            # A copy each: a slice would keep the vectors of its whole batch alive.
            self._vectors.update((name, vector.copy()) for name, vector in fresh.items())
            while len(self._vectors) > self._remembered:
                self._vectors.popitem(last=False)
