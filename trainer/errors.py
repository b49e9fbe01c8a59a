"""The one exception of the trainer's own; the others are in :mod:`schemas.errors`."""

from schemas.errors import RetrailError


class TrainingError(RetrailError):
    """Training gives no child.

    No batch has two queries or a negative, so there is nothing to compare a positive with; or the
    loss or its gradient is not finite, and the child is discarded.
    """
