"""The exceptions of the consumers.

::

    RetrailError
    ├── CollectionLostError    the collection of a build, or the alias, does not exist
    └── StoppedError           the process stops, or another one has the lease
"""

from schemas.errors import RetrailError


class CollectionLostError(RetrailError):
    """The collection of a build, or the alias, does not exist."""


class StoppedError(RetrailError):
    """The process stops, another one has the lease, or the task has changed."""
