"""What Prometheus sees of the search servers."""

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from retrail import Stats

REQUEST_SECONDS = Histogram(
    "retrail_request_seconds",
    "Time from a request to its answer, by what was asked for.",
    ["operation"],
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
REQUESTS = Counter("retrail_requests_total", "Requests by HTTP status.", ["operation", "status"])
REQUESTS_UNDER_WAY = Gauge("retrail_requests_under_way", "Requests that are being answered.")
BATCH_QUERIES = Histogram(
    "retrail_search_batch_queries",
    "Queries that were encoded and searched together.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
TRAJECTORIES_OPEN = Gauge("retrail_trajectories_open", "Trajectories that requests may go on with.")
TRAJECTORIES_ENDED = Counter(
    "retrail_trajectories_ended_total", "Trajectories ended, by why.", ["why"]
)


class EventCounts:
    """What became of published events, as a publisher counts them, while it is registered."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def register(self) -> None:
        """Show them."""
        REGISTRY.register(self)

    def unregister(self) -> None:
        """Show them no more."""
        REGISTRY.unregister(self)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        stats = self._stats()
        events = CounterMetricFamily(
            "retrail_published_events", "Trajectory events by their fate.", labels=["fate"]
        )
        for fate in ("delivered", "failed", "dropped"):
            events.add_metric([fate], getattr(stats, fate))
        yield events
        yield GaugeMetricFamily(
            "retrail_published_events_waiting", "Events that Kafka has yet to take.", stats.waiting
        )
