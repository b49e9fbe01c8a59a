"""The exceptions of the consumers.

::

    RetrailError
    ├── CollectionLostError    the collection of a build, or the alias, does not exist
    └── StoppedError           the work was stopped, or belongs to another process now
"""

from schemas.errors import RetrailError


class CollectionLostError(RetrailError):
    """The collection of a build, or the alias, does not exist."""


class StoppedError(RetrailError):
    """The process stops, another one holds the lease, or the task under it has changed."""
