"""Rows, their batches, and texts cut to the limits of fields."""

import numpy as np

from consumers.indexing.collection import (
    BATCH_ROWS,
    MAX_HASH_BYTES,
    MAX_ID_BYTES,
    MAX_TEXT_BYTES,
    Row,
    cut,
    unindexed,
)


def test_the_largest_rows_of_a_batch_are_below_the_limit_of_a_message() -> None:
    text = "x" * MAX_TEXT_BYTES
    vector = np.zeros(4096, np.float32)
    fields = Row("x" * MAX_ID_BYTES, text, text, "x" * MAX_HASH_BYTES, vector).fields("hybrid")
    size = sum(
        value.nbytes if isinstance(value, np.ndarray) else len(value.encode()) + 10
        for value in fields.values()
    )
    assert BATCH_ROWS * size < 64 * 2**20


def test_cutting_keeps_whole_characters() -> None:
    assert cut("aé漢😀", 3) == "aé"
    assert cut("aé漢😀", 9) == "aé漢"
    assert cut("aé漢😀", 10) == "aé漢😀"


def test_rows_are_indexed_while_milvus_searches_what_a_segment_was_made_of() -> None:
    compacted = {"total_rows": 10, "indexed_rows": 10, "pending_index_rows": 7}
    deleted = {"total_rows": 8, "indexed_rows": 10, "pending_index_rows": 0}
    fresh = {"total_rows": 10, "indexed_rows": 6, "pending_index_rows": 4}
    assert unindexed([compacted, deleted]) == 0
    assert unindexed([compacted, fresh]) == 4
