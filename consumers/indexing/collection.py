"""The collection of a build: fields, the BM25 function, indexes, rows and batches of rows.

BM25 has its own field with the text that the encoder reads, title included.

Milvus Lite 3.2.2: ``drop_index`` of one field drops the indexes of all; ``create_index`` with
several raises for all if one exists. So indexes are created and dropped one at a time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, Function, FunctionType, MilvusClient

from retrail_runtime.milvus import (
    BM25_FIELD,
    BM25_METRIC,
    HASH_FIELD,
    ID_FIELD,
    METRIC,
    TENANT_FIELD,
    TEXT_FIELD,
    TITLE_FIELD,
    URL_FIELD,
    VECTOR_FIELD,
)
from schemas import SearchMode
from schemas.documents import embedded_text
from schemas.errors import RetrailError

LEXICAL_FIELD = "lexical"
"""The text that the encoder reads; of hybrid builds."""

MAX_ID_BYTES = 2048
"""VARCHAR counts bytes: 512 characters of a document id are at most this in UTF-8."""
MAX_TEXT_BYTES = 65_535
"""Milvus' largest VARCHAR. The collection holds the beginning of a longer text, the topic all."""
MAX_HASH_BYTES = 32
MAX_TENANT_BYTES = 512
"""128 characters in UTF-8."""
MAX_URL_BYTES = 8192
"""2,048 characters in UTF-8."""

INDEXED_FIELDS: dict[SearchMode, tuple[str, ...]] = {
    "dense": (VECTOR_FIELD,),
    "hybrid": (VECTOR_FIELD, BM25_FIELD),
}

BATCH_ROWS = 256
"""Rows in one call: the largest ones together are below Milvus' limit of 64 MiB for a message."""


class CollectionLostError(RetrailError):
    """The collection of a build, or the alias, does not exist."""


def cut(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """The longest beginning of ``text`` that has at most ``limit`` bytes in UTF-8.

    >>> cut("née", 2)
    'n'
    """
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[:limit].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Row:
    """A document in a collection; ``vector`` is L2-normalised, ``tenant`` empty for everyone."""

    doc_id: str
    title: str
    text: str
    content_hash: str
    vector: NDArray[np.float32]
    url: str = ""
    tenant: str = ""

    def fields(self, search: SearchMode = "dense", *, tenants: bool = True) -> dict[str, Any]:
        """The entity for Milvus; title and text cut to the limits of their fields.

        Args:
            search, tenants: of the build.
        """
        fields = {
            ID_FIELD: self.doc_id,
            TITLE_FIELD: cut(self.title),
            TEXT_FIELD: cut(self.text),
            URL_FIELD: self.url,
            HASH_FIELD: self.content_hash,
            VECTOR_FIELD: self.vector,
        }
        if tenants:
            fields[TENANT_FIELD] = self.tenant
        if search == "hybrid":
            fields[LEXICAL_FIELD] = cut(embedded_text(self.title, self.text))
        return fields


def schema(search: SearchMode, dimension: int) -> Any:
    """The schema for ``create_collection``."""
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    made.add_field(ID_FIELD, DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
    made.add_field(TITLE_FIELD, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
    made.add_field(TEXT_FIELD, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
    made.add_field(URL_FIELD, DataType.VARCHAR, max_length=MAX_URL_BYTES)
    made.add_field(TENANT_FIELD, DataType.VARCHAR, max_length=MAX_TENANT_BYTES)
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


def unindexed(described: Iterable[Mapping[str, Any]]) -> int:
    """Rows that searches read without an index, of the field that has most of them.

    Milvus indexes a segment again that it compacted, and searches the segments that it was made of
    until then. They count as indexed, but as pending, too (``countIndexedRows`` and
    ``completeIndexInfo`` in Milvus' ``internal/datacoord/index_service.go``). The count may miss
    some rows where others were deleted.

    Args:
        described: what ``describe_index`` returns, for each index.
    """
    return max(max(0, int(one["total_rows"]) - int(one["indexed_rows"])) for one in described)
