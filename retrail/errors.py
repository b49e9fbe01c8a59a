"""What the publishing client raises.

::

    PublishError                  nothing that an agent publishes raises anything else
    ├── ConfigurationError        a Publisher cannot be made with these arguments or variables
    ├── InvalidEvent              the arguments make no event of the contract
    ├── EventTooLarge             the event is above the 4 MiB that the topic takes
    ├── QueueFull                 the queue to the broker is full, also after waiting
    ├── NotDelivered              events were queued, but the broker did not take them
    ├── PublisherClosed           the publisher was closed before this event
    └── TrajectoryOver            the trajectory has ended, lost its start, or is another process's

With ``on_error="drop"`` (the default) only :class:`ConfigurationError` is ever raised; the others
are logged, counted in ``Publisher.stats`` and handed to ``on_failure``.
"""


class PublishError(Exception):
    """Base of all errors of the client."""


class ConfigurationError(PublishError, ValueError):
    """A :class:`~retrail.Publisher` cannot be made with these arguments or variables."""


class InvalidEvent(PublishError, ValueError):
    """The arguments make no event of the contract; the message never holds an agent's text."""


class EventTooLarge(PublishError):
    """The event is above the 4 MiB that the topic takes."""


class QueueFull(PublishError):
    """The queue to the broker is full, also after waiting for ``block_seconds``."""


class NotDelivered(PublishError):
    """Events were queued, but the broker did not take them in time; ``count`` says how many."""

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class PublisherClosed(PublishError):
    """The publisher was closed before this event."""


class TrajectoryOver(PublishError):
    """The trajectory has ended, lost its first event, or was opened by another process."""
