"""Rows, their batches, and texts cut to the limits of fields."""

import numpy as np

from consumers.indexing.collection import Row, batches
from retrail_runtime.collection import cut


def test_batches_keep_to_both_limits() -> None:
    rows = [Row(str(n), "title", "x" * 100, "hash", np.zeros(8, np.float32)) for n in range(10)]
    assert [len(b) for b in batches(rows, max_rows=4)] == [4, 4, 2]
    assert [len(b) for b in batches(rows, max_bytes=2 * rows[0].size())] == [2] * 5
    assert [len(b) for b in batches(rows, max_bytes=1)] == [1] * 10
    limit = 2 * rows[0].size("hybrid")
    assert [len(b) for b in batches(rows, max_bytes=limit, search="hybrid")] == [2] * 5
    assert rows[0].size("hybrid") > rows[0].size()


def test_cutting_keeps_whole_characters() -> None:
    assert cut("aé漢😀", 3) == "aé"
    assert cut("aé漢😀", 9) == "aé漢"
    assert cut("aé漢😀", 10) == "aé漢😀"
