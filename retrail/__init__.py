"""Retrail's client, for the processes of agents: publishes their steps as events to Kafka.

It requires only confluent-kafka. With an extra, ``retrail.http`` and ``retrail.adapters``
search through ``retrail serve``. It imports nothing else of Retrail.

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
    ServeError,
)
from retrail.publisher import Publisher
from retrail.reporting import LostEvent, Stats
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
    "ServeError",
    "Stats",
    "Timeout",
    "Trajectory",
]
