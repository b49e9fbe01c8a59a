"""Retrail's publishing client: what search agents do, as events on Kafka.

It needs confluent-kafka and nothing else. The command line lives in ``retrail_cli``.

Example:
    >>> from retrail import Publisher
    >>> publisher = Publisher(agent="my-agent", model="qwen3-30b")  # doctest: +SKIP
    >>> with publisher.trajectory() as trajectory:  # doctest: +SKIP
    ...     trajectory.search("when was it built", ["d7", "d2"])
    ...     trajectory.browse("d2")
    ...     trajectory.reason("The page gives the date directly.")
    ...     trajectory.answer("1965")
    ...     trajectory.end("correct")
"""

from retrail.config import Limits, Timeout
from retrail.errors import (
    ClosedError,
    ConfigurationError,
    DeliveryError,
    InvalidEventError,
    PublishError,
    QueueFullError,
)
from retrail.publisher import Publisher
from retrail.stats import LostEvent, Stats
from retrail.trajectory import Trajectory

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "ConfigurationError",
    "DeliveryError",
    "InvalidEventError",
    "Limits",
    "LostEvent",
    "PublishError",
    "Publisher",
    "QueueFullError",
    "Stats",
    "Timeout",
    "Trajectory",
]
