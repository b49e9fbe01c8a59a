"""Errors of the client.

::

    PublishError               base class; publishing raises nothing else
    ├── ConfigurationError     a Publisher or SearchClient cannot be made with these arguments
    ├── InvalidEventError      the arguments break the contract, or the event is too large
    ├── QueueFullError         the queue to the broker is still full after waiting
    ├── DeliveryError          enqueued events were not acknowledged in time
    ├── ClosedError            the publisher is closed, or the trajectory has ended
    └── ServeError             a request to ``retrail serve`` failed

With ``on_error="drop"`` (the default) a :class:`~retrail.Publisher` raises only
:class:`ConfigurationError`; the others are logged, counted in ``Publisher.stats`` and passed to
``on_failure``.
"""


class PublishError(Exception):
    """Base class of all errors of the client.

    Attributes:
        trajectory_id: trajectory of the event that was not published, if the error is about one.
        event: type of that event, such as ``"search"``.
    """

    trajectory_id: str | None = None
    event: str | None = None


class ConfigurationError(PublishError, ValueError):
    """A ``Publisher`` or ``SearchClient`` cannot be made with these arguments or variables."""


class InvalidEventError(PublishError, ValueError):
    """The arguments break the contract; the message contains no text of the agent.

    Attributes:
        size: bytes of the record, if it exceeds the topic's limit of 4 MiB.
    """

    def __init__(self, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class QueueFullError(PublishError):
    """The queue to the broker is still full after ``Timeout.block`` seconds.

    Attributes:
        waiting: events in the queue.
    """

    def __init__(self, message: str, waiting: int) -> None:
        super().__init__(message)
        self.waiting = waiting


class DeliveryError(PublishError):
    """Enqueued events were not acknowledged in time.

    Attributes:
        count: number of events since the last ``flush``.
    """

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class ClosedError(PublishError):
    """The publisher is closed, or the trajectory has ended or belongs to another process."""


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
