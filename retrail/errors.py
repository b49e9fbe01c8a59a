"""What the publishing client raises.

::

    PublishError                   nothing that an agent publishes raises anything else
    ├── ConfigurationError         a Publisher cannot be made with these arguments or variables
    ├── InvalidEventError          the arguments make no event of the contract
    ├── EventTooLargeError         the event is above the 4 MiB that the topic takes
    ├── QueueFullError             the queue to the broker is full, also after waiting
    ├── DeliveryError              events were queued, but the broker did not take them
    ├── PublisherClosedError       the publisher was closed before this event
    └── TrajectoryClosedError      the trajectory ended, lost its start or belongs elsewhere

With ``on_error="drop"`` (the default) only :class:`ConfigurationError` is ever raised; the others
are logged, counted in ``Publisher.stats`` and handed to ``on_failure``.
"""


class PublishError(Exception):
    """Base of all errors of the client."""


class ConfigurationError(PublishError, ValueError):
    """A :class:`~retrail.Publisher` cannot be made with these arguments or variables."""


class InvalidEventError(PublishError, ValueError):
    """The arguments make no event of the contract; the message never holds an agent's text."""


class EventTooLargeError(PublishError):
    """The event is above the 4 MiB that the topic takes."""


class QueueFullError(PublishError):
    """The queue to the broker is full, also after waiting for ``block_seconds``."""


class DeliveryError(PublishError):
    """Events were queued, but the broker did not take them in time; ``count`` says how many."""

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class PublisherClosedError(PublishError):
    """The publisher was closed before this event."""


class TrajectoryClosedError(PublishError):
    """The trajectory has ended, lost its first event, or was opened by another process."""
