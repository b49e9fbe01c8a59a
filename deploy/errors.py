"""Errors of the local stack.

::

    RetrailError
    └── StackError             a part did not start or ended, or a port or data directory is in use
        └── MissingToolError   Java, or a package that runs a part, is not installed
"""

from schemas.errors import RetrailError


class StackError(RetrailError):
    """A part of the stack did not start or ended, or a port or data directory is in use.

    Attributes:
        exit_status: of the command.
    """

    def __init__(self, message: str, *, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class MissingToolError(StackError):
    """Java, or a package that runs a part of the stack, is not installed."""
