"""The error of the simulation; it derives from ``schemas.errors``."""

from schemas.errors import RetrailError


class DemoError(RetrailError):
    """A stage of the loop does not get on, or had nothing to do, so the loop did not close."""
