"""What can go wrong with the local stack; siblings of those in ``schemas.errors``."""

from schemas.errors import RetrailError


class ToolMissing(RetrailError):
    """Java, Maven or a package that runs a part of the stack is not installed."""


class PortTaken(RetrailError):
    """Another process listens on a port that the stack was told to use."""


class StackInUse(RetrailError):
    """Another stack runs on this data directory."""


class StackFailed(RetrailError):
    """A part of the stack did not start, or ended while it was needed."""


class StoppedEarly(RetrailError):
    """Somebody stopped the stack before it was ready."""

    exit_status = 130
