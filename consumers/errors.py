"""The exceptions of the consumers.

::

    RetrailError
    ├── CollectionLostError    the collection of a build, or the alias, does not exist
    ├── LeaseLostError         another process holds the lease, or its task has changed
    └── StoppedError           the thread was asked to stop
"""

from schemas.errors import RetrailError


class CollectionLostError(RetrailError):
    """The collection of a build, or the alias, does not exist."""


class LeaseLostError(RetrailError):
    """Another process holds the lease, the task under it has changed, or the process stops."""


class StoppedError(RetrailError):
    """The thread was asked to stop."""
