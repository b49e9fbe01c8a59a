"""Metrics of searches and of the servers around them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from retrail import Stats
from retrail_runtime.metrics import at_zero

RetryReason = Literal["no alias", "dropped", "not loaded", "failed"]
CloseReason = Literal["header", "limit"]

SEARCH_SECONDS = Histogram(
    "retrail_search_duration_seconds",
    "Time of one call of the retriever, by part: encoding, Milvus.",
    ["part"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
SEARCHES = Counter("retrail_search_queries_total", "Queries by result.", ["result"])
RETRIES = Counter(
    "retrail_search_retries_total", "Calls repeated within a search, by reason.", ["reason"]
)
SWITCHES = Counter(
    "retrail_search_model_switches_total", "Times that a retriever switched to another build."
)
SEARCHED_VERSION = Gauge(
    "retrail_search_version", "Version of the model and index that are searched."
)
BATCH_QUERIES = Histogram(
    "retrail_search_batch_queries",
    "Queries encoded and searched together.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)

REQUEST_SECONDS = Histogram(
    "retrail_serve_request_duration_seconds",
    "Time to answer a search or an opening.",
    ["operation"],
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
REQUESTS = Counter(
    "retrail_serve_requests_total", "Requests by HTTP status.", ["operation", "status"]
)
REQUESTS_IN_PROGRESS = Gauge(
    "retrail_serve_requests_in_progress", "Searches and openings that are being answered."
)
CONNECTIONS_CLOSED = Counter(
    "retrail_serve_connections_closed_total",
    "Connections closed while they waited for their client, by reason.",
    ["reason"],
)
UNACKNOWLEDGED = Counter(
    "retrail_serve_unacknowledged_calls_total",
    "Calls answered before Kafka acknowledged their events.",
)

at_zero(SEARCH_SECONDS, ("encode", "milvus"))
at_zero(SEARCHES, ("ok", "error"))
at_zero(RETRIES, get_args(RetryReason))
at_zero(REQUEST_SECONDS, ("search", "open"))
at_zero(CONNECTIONS_CLOSED, get_args(CloseReason))


MAX_EXEMPLAR = 128 - len("trajectory_id")
"""OpenMetrics' limit on an exemplar, names and values together."""


@contextmanager
def timed(operation: str, trajectory_id: str) -> Iterator[None]:
    """Observe the time of an operation, with its trajectory as the exemplar if that is short."""
    exemplar = {"trajectory_id": trajectory_id} if len(trajectory_id) <= MAX_EXEMPLAR else None
    began = time.perf_counter()
    try:
        yield
    finally:
        REQUEST_SECONDS.labels(operation).observe(time.perf_counter() - began, exemplar)


class EventCounts:
    """A collector of a publisher's counts of events."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        stats = self._stats()
        events = CounterMetricFamily(
            "retrail_serve_published_events",
            "Trajectory events by delivery status.",
            labels=["status"],
        )
        for status in ("delivered", "failed", "dropped"):
            events.add_metric([status], getattr(stats, status))
        yield events
        yield GaugeMetricFamily(
            "retrail_serve_publish_queue_events",
            "Events that Kafka has yet to take.",
            stats.waiting,
        )
