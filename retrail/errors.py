"""What the client raises.

::

    PublishError               nothing that an agent publishes raises anything else
    ├── ConfigurationError     a Publisher or SearchClient cannot be made with these arguments
    ├── InvalidEventError      the arguments make no event of the contract, or one that is too large
    ├── QueueFullError         the queue to the broker is full, also after waiting
    ├── DeliveryError          events were queued, but the broker did not take them
    ├── ClosedError            the publisher was closed, or the trajectory takes no more events
    └── ServeError             ``retrail serve`` did not do what was asked of it

With ``on_error="drop"`` (the default) a :class:`~retrail.Publisher` only ever raises
:class:`ConfigurationError`; the others are logged, counted in ``Publisher.stats`` and handed to
``on_failure``.
"""


class PublishError(Exception):
    """Base of all errors of the client.

    Attributes:
        trajectory_id: trajectory of the event that was not published, if the error is about one.
        event: type of that event, such as ``"search"``.
    """

    trajectory_id: str | None = None
    event: str | None = None


class ConfigurationError(PublishError, ValueError):
    """A ``Publisher`` or ``SearchClient`` cannot be made with these arguments or variables."""


class InvalidEventError(PublishError, ValueError):
    """The arguments make no event of the contract; the message never holds an agent's text.

    Attributes:
        size: bytes of the record, if it is above the 4 MiB that the topic takes.
    """

    def __init__(self, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class QueueFullError(PublishError):
    """The queue to the broker is full, also after waiting for ``Timeout.block`` seconds.

    Attributes:
        waiting: events in the queue.
    """

    def __init__(self, message: str, waiting: int) -> None:
        super().__init__(message)
        self.waiting = waiting


class DeliveryError(PublishError):
    """Events were queued, but the broker did not take them in time.

    Attributes:
        count: how many, since the last ``flush``.
    """

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class ClosedError(PublishError):
    """The publisher was closed, or the trajectory has ended or belongs to another process."""


class ServeError(PublishError):
    """``retrail serve`` did not answer, or answered with an error.

    Attributes:
        status: HTTP status of its answer; ``None`` if there was none.
        retry_after: seconds after which the request may be repeated, if the server gave them.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
