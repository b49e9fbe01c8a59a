"""Documents as a collection holds them, and how many fit into one message to Milvus."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.collection import (
    HASH_FIELD,
    ID_FIELD,
    LEXICAL_FIELD,
    TEXT_FIELD,
    TITLE_FIELD,
    VECTOR_FIELD,
    SearchMode,
    cut,
)
from schemas.documents import embedded_text

BATCH_BYTES = 32 * 1024 * 1024
"""Milvus takes messages of up to 64 MiB."""
BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """A document as a collection holds it; ``vector`` is L2-normalised."""

    doc_id: str
    title: str
    text: str
    content_hash: str
    vector: NDArray[np.float32]

    def fields(self, search: SearchMode = "dense") -> dict[str, Any]:
        """As Milvus takes it; title and text cut to what it can hold."""
        fields = {
            ID_FIELD: self.doc_id,
            TITLE_FIELD: cut(self.title),
            TEXT_FIELD: cut(self.text),
            HASH_FIELD: self.content_hash,
            VECTOR_FIELD: self.vector,
        }
        if search == "hybrid":
            fields[LEXICAL_FIELD] = cut(embedded_text(self.title, self.text))
        return fields

    def size(self, search: SearchMode = "dense") -> int:
        """Bytes in a message, about: at most that many."""
        texts = (len(self.title) + len(self.text)) * (2 if search == "hybrid" else 1)
        return 4 * (len(self.doc_id) + texts) + self.vector.nbytes + 200


def batches(
    rows: Sequence[Row],
    max_rows: int = BATCH_ROWS,
    max_bytes: int = BATCH_BYTES,
    search: SearchMode = "dense",
) -> Iterable[list[Row]]:
    """Split rows so that each batch keeps to both limits; a row above them stands alone."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) >= max_rows or size + row.size(search) > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.size(search)
    if batch:
        yield batch
