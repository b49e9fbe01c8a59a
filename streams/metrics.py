"""The metrics of the stream workers; both serve all of them on ``/metrics``.

Every record that a worker reads is counted under one ``result``. Their lag in records is
:data:`retrail_runtime.metrics.LAG_RECORDS`. ``docs/metrics.md`` lists all metrics, with queries.
"""

from prometheus_client import Counter, Gauge, Histogram

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


_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_RANKS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50, 100)
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)

# -- both workers ---------------------------------------------------------------------------
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

# -- judge ----------------------------------------------------------------------------------
EVENTS = Counter(
    "retrail_judge_events_total", "Trajectory events read by the judge.", ["type", "result"]
)
UNKNOWN_FIELDS = Counter("retrail_judge_unknown_fields_total", "Ignored fields of newer versions.")
DEAD_LETTERS = Counter(
    "retrail_judge_dead_letters_total", "Records sent to the dead letter queue.", ["reason"]
)
VERDICTS = Counter(
    "retrail_judge_verdicts_total", "Verdicts on browsed documents.", ["verdict", "judge"]
)
UNKNOWN = Counter(
    "retrail_judge_unknown_total",
    "Unknown verdicts, by reason: empty (no text), language (not English; judge local only), "
    "unusable (no usable answer of a judging server).",
    ["reason"],
)
JUDGE_SECONDS = Histogram(
    "retrail_judge_duration_seconds",
    "Time of a judge for one verdict that is not cached.",
    ["judge"],
    buckets=_SECONDS,
)
JUDGE_REQUESTS = Counter(
    "retrail_judge_requests_total",
    "Requests to a judging server, by result (answered, cached, shared: with a running one, "
    "unusable, retried).",
    ["result"],
)
JUDGE_TOKENS = Counter(
    "retrail_judge_tokens_total", "Tokens that the judging server counted.", ["kind"]
)
JUDGE_AVAILABLE = Gauge(
    "retrail_judge_server_up", "0 while the judging server does not answer and the worker waits."
)
REASONING_TOKENS = Histogram(
    "retrail_judge_reasoning_tokens",
    "Length of the reasoning about a browsed document; agent models beyond 50 are one, other.",
    ["agent_model"],
    buckets=_TOKENS,
)
TICKS = Counter("retrail_judge_ticks_total", "Ticks written while there was nothing to read.")

# -- miner ----------------------------------------------------------------------------------
MINED_EVENTS = Counter(
    "retrail_mine_events_total",
    "Judged events by result (accepted, repeated, held, late, oversize, rejudged, refused, …).",
    ["result"],
)
BROWSES = Counter(
    "retrail_mine_browses_total", "Browses of closed trajectories by result.", ["result"]
)
CLOSED = Counter("retrail_mine_trajectories_closed_total", "Trajectories closed.", ["reason"])
OPEN = Gauge("retrail_mine_open_trajectories", "Trajectories that are not closed.", ["partition"])
PAIRS = Counter("retrail_mine_pairs_total", "Labelled pairs written.", ["verdict"])
OVERSIZED_PAIRS = Counter(
    "retrail_mine_oversized_pairs_total", "Labelled pairs that were too large for their topic."
)
BROWSED_RANK = Histogram(
    "retrail_mine_browsed_rank",
    "Rank of a browsed document in the search that found it, of closed trajectories.",
    ["verdict"],
    buckets=_RANKS,
)
NEGATIVES = Histogram(
    "retrail_mine_pair_negatives", "Negatives of a pair.", ["verdict"], buckets=_COUNTS
)
GAPS = Counter("retrail_mine_missing_events_total", "Events missing from closed trajectories.")
