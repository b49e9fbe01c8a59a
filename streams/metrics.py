"""The metrics that judge and miner share; each has more of its own.

Every record that a worker reads is counted under one ``result``. Their lag in records is
:data:`retrail_runtime.metrics.LAG_RECORDS`. ``docs/metrics.md`` lists all metrics, with queries.
"""

from prometheus_client import Counter, Gauge

from retrail_runtime.metrics import at_zero

OTHER = "other"
NAMELESS = "none"
MAX_LABEL_VALUES = 50


class BoundedLabel:
    """A label whose values come from outside, bounded because each one is a time series.

    The first values are kept, all later ones become :data:`OTHER`.
    """

    def __init__(self, most: int = MAX_LABEL_VALUES) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """The label for a value; :data:`NAMELESS` for an empty one, which Prometheus drops.

        >>> label = BoundedLabel(most=1)
        >>> label.of("qwen"), label.of("llama"), label.of("qwen"), label.of("")
        ('qwen', 'other', 'qwen', 'none')
        """
        if value and len(self._known) < self._most:
            self._known.add(value)
        return (value if value in self._known else OTHER) if value else NAMELESS


LAG_SECONDS = Gauge(
    "retrail_consumer_lag_seconds",
    "Age of the last record read, while there are more; else 0.",
    ["topic", "partition"],
)
OPEN_TRANSACTION = Gauge(
    "retrail_consumer_open_transaction_seconds",
    "How long the last stable offset has been held below the high watermark by an open "
    "transaction; else 0.",
    ["topic", "partition"],
)
ASSIGNED = Gauge(
    "retrail_consumer_assigned_partitions", "Partitions that this worker owns.", ["topic"]
)
CHECKPOINTS = Counter(
    "retrail_checkpoints_total",
    "Attempts to commit offsets, by result (committed, lost: partitions were revoked, waiting).",
    ["result"],
)
DISCONTINUITIES = Counter(
    "retrail_offset_discontinuities_total",
    "Offsets that were not the next ones: refetched (the worker sought back once), gap (accepted: "
    "the records are gone), reset (the log starts again), skipped (an operator skipped undecodable "
    "records), recreated (another topic of the same name).",
    ["topic", "kind"],
)
at_zero(CHECKPOINTS, ("committed", "lost", "waiting"))
