"""What callers of the servers are told of an error; the log gets the rest (addresses, paths)."""

from dataclasses import dataclass

from schemas.errors import MilvusUnavailableError, ModelError, NoIndexError, RetrailError


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a caller may see it; ``retry_after`` seconds, if repeating may help."""

    status: int
    title: str
    message: str
    retry_after: int | None = None


_KNOWN: dict[type[RetrailError], Failure] = {
    NoIndexError: Failure(
        503, "No index yet", "There is no index yet; it is being built. Try again later.", 5
    ),
    MilvusUnavailableError: Failure(
        503, "Index unavailable", "The index does not answer now. Repeat the request.", 1
    ),
    ModelError: Failure(
        503,
        "Model unavailable",
        "The model of the index cannot be loaded now. Try again later.",
        30,
    ),
}
_OTHER = Failure(500, "Server error", "The server failed; its log says why.")


def failure_of(error: RetrailError) -> Failure:
    """What to tell.

    >>> failure_of(NoIndexError("Milvus at http://10.0.0.7:19530 has no alias")).message
    'There is no index yet; it is being built. Try again later.'
    """
    return next((_KNOWN[kind] for kind in type(error).__mro__ if kind in _KNOWN), _OTHER)
