"""Prometheus metrics of training and encoding."""

from prometheus_client import Counter, Gauge, Histogram

from retrail_runtime.metrics import at_zero

ENCODED = Counter("retrail_encoder_texts_total", "Texts encoded.", ["kind"])
ENCODING_SECONDS = Histogram(
    "retrail_encoder_duration_seconds",
    "Time to encode the texts of one call, in seconds.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0),
)
TRAINING_STEPS = Counter("retrail_train_steps_total", "Optimiser steps.")
TRAINING_PAIRS = Counter("retrail_train_pairs_total", "Pairs in all optimiser steps.")
TRAINING_BATCH = Histogram(
    "retrail_train_batch_pairs",
    "Pairs in a batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
TRAINING_LOSS = Gauge("retrail_train_loss", "Loss of the latest step.")
TRAINING_STEP_SECONDS = Histogram(
    "retrail_train_step_duration_seconds",
    "Duration of one optimiser step, in seconds.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
RUN_STEP = Gauge("retrail_train_run_step", "Latest step of the current run, or of the last one.")
RUN_STEPS = Gauge("retrail_train_run_steps", "Total steps of this run.")
RUN_LEARNING_RATE = Gauge("retrail_train_learning_rate", "Learning rate of the latest step.")
RUN_PAIRS_PER_SECOND = Gauge(
    "retrail_train_pairs_per_second", "Pairs per second since the first step of this run."
)
RUN_SECONDS_LEFT = Gauge(
    "retrail_train_run_remaining_seconds", "Estimated seconds until the last step of this run."
)
GATE_DECISIONS = Counter("retrail_gate_decisions_total", "Decisions of the gate.", ["decision"])
GATE_NDCG = Gauge("retrail_gate_ndcg_at_10", "Mean held-out nDCG@10 at the last gate.", ["model"])

at_zero(ENCODED, ("query", "document"))
