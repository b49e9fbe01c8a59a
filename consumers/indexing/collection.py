"""The collection of a build: fields, the BM25 function, indexes, rows and batches of rows.

BM25 has a field of its own, the text that the encoder reads, so that words of the title count and
both halves of a hybrid search read the same.

Milvus Lite 3.2.2: ``drop_index`` of one field drops the indexes of all; ``create_index`` with
several raises for all if one is there. So missing indexes are created, and existing ones dropped,
one at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, Function, FunctionType, MilvusClient

from retrail_runtime.collection import (
    BM25_FIELD,
    BM25_METRIC,
    HASH_FIELD,
    ID_FIELD,
    LEXICAL_FIELD,
    MAX_HASH_BYTES,
    MAX_ID_BYTES,
    MAX_TEXT_BYTES,
    METRIC,
    TEXT_FIELD,
    TITLE_FIELD,
    VECTOR_FIELD,
    cut,
)
from schemas import SearchMode
from schemas.documents import embedded_text

INDEXED_FIELDS: dict[SearchMode, tuple[str, ...]] = {
    "dense": (VECTOR_FIELD,),
    "hybrid": (VECTOR_FIELD, BM25_FIELD),
}

BATCH_BYTES = 32 * 1024 * 1024
"""Milvus accepts messages of up to 64 MiB."""
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
        """The entity for Milvus; title and text cut to the limits of their fields."""
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
        """Upper bound of its bytes in a message."""
        texts = (len(self.title) + len(self.text)) * (2 if search == "hybrid" else 1)
        return 4 * (len(self.doc_id) + texts) + self.vector.nbytes + 200


def batches(
    rows: Sequence[Row],
    max_rows: int = BATCH_ROWS,
    max_bytes: int = BATCH_BYTES,
    search: SearchMode = "dense",
) -> Iterable[list[Row]]:
    """Split rows into batches within both limits; a row above them is a batch of its own."""
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


def schema(search: SearchMode, dimension: int) -> Any:
    """The schema for ``create_collection``."""
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    made.add_field(ID_FIELD, DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
    made.add_field(TITLE_FIELD, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
    made.add_field(TEXT_FIELD, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
    made.add_field(HASH_FIELD, DataType.VARCHAR, max_length=MAX_HASH_BYTES)
    made.add_field(VECTOR_FIELD, DataType.FLOAT_VECTOR, dim=dimension)
    if search == "hybrid":
        made.add_field(
            LEXICAL_FIELD, DataType.VARCHAR, max_length=MAX_TEXT_BYTES, enable_analyzer=True
        )
        made.add_field(BM25_FIELD, DataType.SPARSE_FLOAT_VECTOR)
        made.add_function(
            Function(
                name=BM25_FIELD,
                function_type=FunctionType.BM25,
                input_field_names=[LEXICAL_FIELD],
                output_field_names=[BM25_FIELD],
            )
        )
    return made


def index_params(field: str, vector_index: str) -> Any:
    """The index of a field, for ``create_index``.

    Args:
        field: one of :data:`INDEXED_FIELDS`.
        vector_index: index type of the vectors.
    """
    params = MilvusClient.prepare_index_params()
    if field == BM25_FIELD:
        params.add_index(field, index_type="SPARSE_INVERTED_INDEX", metric_type=BM25_METRIC)
    else:
        params.add_index(field, index_type=vector_index, metric_type=METRIC)
    return params
