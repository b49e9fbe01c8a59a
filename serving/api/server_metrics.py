"""What Prometheus sees of the search servers."""

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from retrail import Stats

REQUEST_SECONDS = Histogram(
    "retrail_serve_request_duration_seconds",
    "Time from a request to its answer, by what was asked for.",
    ["operation"],
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
REQUESTS = Counter(
    "retrail_serve_requests_total", "Requests by HTTP status.", ["operation", "status"]
)
REQUESTS_UNDER_WAY = Gauge(
    "retrail_serve_requests_in_progress", "Requests that are being answered."
)
TRAJECTORIES_OPEN = Gauge(
    "retrail_serve_open_trajectories", "Trajectories that requests may go on with."
)
TRAJECTORIES_ENDED = Counter(
    "retrail_serve_trajectories_ended_total", "Trajectories ended, by reason.", ["reason"]
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
