"""Metrics that every worker has."""

import itertools
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

LAG_RECORDS = Gauge(
    "retrail_consumer_lag_records",
    "Records between what has been read and the end of the topic.",
    ["topic", "partition"],
)
ERASED = Counter("retrail_erased_records_total", "Records passed over as erased.", ["stage"])
INVALID_RECORDS = Counter(
    "retrail_consumer_invalid_records_total",
    "Records that break the contract of their topic: documents, outcomes, pairs, runs, releases.",
    ["stage"],
)
MIRROR_REBUILDS = Counter(
    "retrail_mirror_rebuilds_total",
    "Local copies of a topic that were removed and read again.",
    ["topic", "reason"],
)

DEPENDENCY_UP = Gauge(
    "retrail_dependency_up",
    "Whether the latest call to it was answered: kafka, milvus, registry or judge_server.",
    ["dependency"],
)
ALIVE = Gauge("retrail_worker_alive", "0 while only a restart helps, as /healthz; else 1.")
ALIVE.set(1)
DISK_USED = Gauge(
    "retrail_data_dir_disk_used_ratio", "Used share of the disk that holds RETRAIL_DATA_DIR."
)


def at_zero(metric: Counter | Histogram, *values: Iterable[str]) -> None:
    """Show a series of the value 0 for each combination of label values.

    ``rate`` does not see the first increment of a series that appears with it.

    Args:
        values: all that are known of each label, in the order of the labels.
    """
    for labels in itertools.product(*values):
        metric.labels(*labels)


at_zero(ERASED, ("mine", "train"))
at_zero(INVALID_RECORDS, ("erasures",))
