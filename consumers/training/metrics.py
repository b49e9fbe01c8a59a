"""Metrics of the trainer (steps, loss and gate: ``trainer.metrics``)."""

from prometheus_client import Counter, Gauge, Histogram

PAIRS_READ = Counter(
    "retrail_train_pairs_read_total",
    "Labelled pairs read by the trainer, the first of each pair_id, by verdict.",
    ["verdict"],
)
PAIRS_REPEATED = Counter(
    "retrail_train_pairs_repeated_total", "Labelled pairs whose pair_id had been read before."
)
PAIRS_PENDING = Gauge(
    "retrail_train_pairs_pending",
    "Relevant pairs for training since the last run; RETRAIL_TRAIN_MIN_PAIRS of them start one.",
)
PENDING_AGE = Gauge("retrail_train_pairs_pending_age_seconds", "Age of the oldest pending pair.")
ACTIVE = Gauge("retrail_train_active", "1 on the trainer that trains, 0 on a stand-by.")
RUNS = Counter(
    "retrail_train_runs_total",
    "Training runs by result: ship, hold, reject, pending, empty, interrupted, failed.",
    ["result"],
)
RUN_SECONDS = Histogram(
    "retrail_train_run_duration_seconds",
    "Wall time of a run from its manifest to its release.",
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
PAIRS_EXCLUDED = Counter(
    "retrail_train_pairs_excluded_total",
    "Pairs in a run's ranges that did not train, by reason.",
    ["reason"],
)
LIVE_VERSION = Gauge("retrail_live_version", "Version of the retriever that should serve.")
