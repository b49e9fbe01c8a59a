"""What every reader of Kafka shows alike; each room has more in its own ``metrics.py``."""

from prometheus_client import Gauge

LAG_EVENTS = Gauge(
    "retrail_consumer_lag_records",
    "Records between what has been read and the end of the topic.",
    ["topic", "partition"],
)
