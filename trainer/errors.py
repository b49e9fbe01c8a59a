"""Errors of the trainer; those that it shares with the other rooms are in ``schemas.errors``."""

from schemas.errors import RetrailError


class TrainingDivergedError(RetrailError):
    """The loss or its gradient is not finite; the child is discarded."""


class NothingToLearnError(RetrailError):
    """No batch has two queries or a negative, so there is nothing to compare a positive with."""
