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

from retrail.dispatch import LostEvent, Stats
from retrail.errors import (
    ConfigurationError,
    DeliveryError,
    EventTooLargeError,
    InvalidEventError,
    PublisherClosedError,
    PublishError,
    QueueFullError,
    TrajectoryClosedError,
)
from retrail.publisher import Publisher
from retrail.trajectory import Trajectory

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "DeliveryError",
    "EventTooLargeError",
    "InvalidEventError",
    "LostEvent",
    "PublishError",
    "Publisher",
    "PublisherClosedError",
    "QueueFullError",
    "Stats",
    "Trajectory",
    "TrajectoryClosedError",
]
