"""What a fold counts reaches the metrics, each count once."""

import pytest
from prometheus_client import REGISTRY

from streams.mine_worker import show


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_counts_become_metrics():
    counts = {
        ("events", "late"): 3,
        ("browses", "unsearched"): 2,
        ("closed", "idle"): 1,
        ("gaps", "idle"): 4,
        ("gaps", "end"): 1,
        ("rank", "irrelevant", "7"): 2,
        ("rank", "irrelevant", "1"): 1,
    }
    read = {
        "late": lambda: value("retrail_mined_events_total", result="late"),
        "unsearched": lambda: value("retrail_mined_browses_total", result="unsearched"),
        "idle": lambda: value("retrail_trajectories_closed_total", reason="idle"),
        "gaps": lambda: value("retrail_gaps_total"),
        "ranks": lambda: value("retrail_browsed_rank_count", verdict="irrelevant"),
        "sum": lambda: value("retrail_browsed_rank_sum", verdict="irrelevant"),
        "first": lambda: value("retrail_browsed_rank_bucket", verdict="irrelevant", le="1.0"),
    }
    before = {name: get() for name, get in read.items()}
    show(counts)
    assert {name: get() - before[name] for name, get in read.items()} == {
        "late": 3,
        "unsearched": 2,
        "idle": 1,
        "gaps": 5,
        "ranks": 3,
        "sum": 15,
        "first": 1,
    }


def test_a_count_that_nothing_shows_is_an_error():
    with pytest.raises(ValueError, match="no metric shows weather"):
        show({("weather", "fair"): 1})
