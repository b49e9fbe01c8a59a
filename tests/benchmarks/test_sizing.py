"""What an installation needs at given unit costs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sizing import DAY, Load, UnitCosts, need, size, table

COSTS = UnitCosts(
    judge_events=10_000,
    mine_events=20_000,
    encoded_documents=100,
    trained_pairs=10,
    searches=200,
    event_bytes=500,
    judged_bytes=600,
    pair_bytes=700,
    document_bytes=2_000,
    pair_disk_bytes=300,
    document_disk_bytes=2_500,
    index_disk_bytes=4_000,
    open_trajectory_bytes=3_600,
    memory_mb={"judge": 100, "mine": 110, "train": 1_500, "index": 800, "serve": 700},
)


def test_figures_of_one_event_a_second() -> None:
    load = Load(trajectories=DAY, events=20, pairs=2, searches=10, documents=360_000, peak=2.0)
    found = need(load, COSTS)
    assert found.peak_events == 40
    assert (found.judges, found.miners, found.servers, found.partitions) == (1, 1, 1, 4)
    # Two trajectories begin each second of the peak and stay open for 600 s.
    assert found.miner_mb == pytest.approx(110 + 2 * 600 * 3_600 / 1e6)
    events, pairs = DAY * 20 * 30, DAY * 2 * 365
    assert found.kafka_disk == pytest.approx(3 * (events * 1_100 + pairs * 700 + 360_000 * 2_000))
    assert found.trainer_disk == pytest.approx(pairs * 300 + 360_000 * 2_500)
    assert found.milvus_disk == 2 * 360_000 * 4_000
    assert found.build_hours == 1
    assert found.training_share == pytest.approx(0.2)


def test_workers_have_room_at_the_peak() -> None:
    found = need(Load(trajectories=10_000_000), COSTS)
    assert found.peak_events == pytest.approx(7_292, abs=1)
    assert (found.judges, found.miners, found.partitions) == (2, 1, 4)
    assert found.servers == 42
    slower = need(Load(trajectories=10_000_000), replace(COSTS, judge_events=1_000))
    assert (slower.judges, slower.partitions) == (15, 30)


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.floats(1, 10), st.floats(0.1, 1))
def test_more_trajectories_never_need_less(one: int, other: int, peak: float, use: float) -> None:
    smaller, larger = (
        need(Load(trajectories=count, peak=peak, use=use), COSTS) for count in sorted((one, other))
    )
    for name in ("judges", "miners", "servers", "partitions", "kafka_disk", "trainer_disk"):
        assert getattr(smaller, name) <= getattr(larger, name)
    for found in (smaller, larger):
        assert found.partitions >= 2 * max(found.judges, found.miners)
        assert found.peak_events <= found.judges * COSTS.judge_events * use * (1 + 1e-9)


def test_table_has_a_column_for_each_load() -> None:
    lines = table([Load(trajectories=1_000), Load(trajectories=100_000)], COSTS).splitlines()
    assert lines[0] == "|  | 1,000 a day | 100,000 a day |"
    assert {line.count("|") for line in lines} == {4}
    assert size(1.5e9) == "1.5 GB"
    assert size(2.5e12) == "2.5 TB"
