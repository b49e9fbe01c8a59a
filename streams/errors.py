"""The one exception of the stream workers' own; the others are in :mod:`schemas.errors`."""

from schemas.errors import RetrailError


class JudgeUnavailableError(RetrailError):
    """The judging server does not answer now; the question is asked again.

    Attributes:
        retry_after: seconds that the server asks for; 0 if it does not.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
