"""Which queries no run ever trains on."""

import hashlib

HELD_OUT_SHARE = 0.2


def folded(query: str) -> str:
    """The query as it counts: two that differ in case or spacing are one.

    >>> folded("  What IS\\na Trajectory? ")
    'what is a trajectory?'
    """
    return " ".join(query.casefold().split())


def is_held_out(query: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether a query is for evaluation only: a hash of it decides, now and for ever.

    Args:
        query: as asked; it is folded here.
        share: of all queries, 0 to 1. Queries held out at a share are held out at any larger one.
    """
    digest = hashlib.sha256(folded(query).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
