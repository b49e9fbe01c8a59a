"""The benchmark of pools: the whole corpus errs never, a small pool lets more children pass."""

from benchmarks import gate_pools


def test_a_smaller_pool_is_more_lenient() -> None:
    found = list(gate_pools.decided(documents=3000, queries=40, children=12, seed=1))

    assert len(found) == 12
    small, _, whole = (sum(one[at] for one in found) for at in range(3))
    assert small >= whole > 0
    head, _, *lines = gate_pools.rows(found)
    assert head.startswith("| pool, % of the corpus")
    assert lines[-1].endswith("| 0.0 | 0.0 |")
