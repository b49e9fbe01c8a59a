"""What the collection of a build looks like: fields, the BM25 function, indexes.

BM25 has a field of its own, the text that the encoder reads, so that words of the title count and
both halves of a hybrid search read the same.

Milvus Lite 3.2.2: ``drop_index`` of one field drops the indexes of all; ``create_index`` with
several raises for all if one is there. So what is missing is created, and what is there dropped,
as it is found.
"""

from typing import Any

from pymilvus import DataType, Function, FunctionType, MilvusClient

from schemas.collection import (
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
    SearchMode,
)

INDEXED: dict[SearchMode, tuple[str, ...]] = {
    "dense": (VECTOR_FIELD,),
    "hybrid": (VECTOR_FIELD, BM25_FIELD),
}
"""The fields with an index, by mode."""

_INDEX_PARAMS: dict[str, dict[str, int]] = {"HNSW": {"M": 16, "efConstruction": 200}}


def schema(search: SearchMode, dimension: int) -> Any:
    """The fields of a collection, as ``create_collection`` takes them."""
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


def index_params(field: str, kind: str) -> Any:
    """The index of a field, as ``create_index`` takes it.

    Args:
        field: one of :data:`INDEXED`.
        kind: ``RETRAIL_MILVUS_INDEX``, of the vectors.
    """
    params = MilvusClient.prepare_index_params()
    if field == BM25_FIELD:
        params.add_index(field, index_type="SPARSE_INVERTED_INDEX", metric_type=BM25_METRIC)
    else:
        params.add_index(
            field, index_type=kind, metric_type=METRIC, params=_INDEX_PARAMS.get(kind, {})
        )
    return params
