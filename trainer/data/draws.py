"""Deterministic sampling by hash: held-out queries and draws of pairs."""

import hashlib
import heapq
from collections.abc import Callable, Iterable

from schemas.base import canonical

HELD_OUT_SHARE = 0.2


def normalize_query(query: str) -> str:
    """The query case-folded, with single spaces: spellings of one query normalize to one string.

    >>> normalize_query("  What IS\\na Trajectory? ")
    'what is a trajectory?'
    """
    return " ".join(query.casefold().split())


def is_held_out(query: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether a query is for evaluation only, by its hash: the same in every run.

    Args:
        query: as the agent wrote it.
        share: of all queries, 0 to 1. A query held out at one share is held out at any larger one.
    """
    return draw_of(normalize_query(query)) < share * 2**63


def draw_of(name: str) -> int:
    """A number from 0 to 2^63 - 1 by the hash of a name; an index on it is a random order."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def draw(ids: Iterable[str], count: int, *, seed: int, parent: int) -> list[str]:
    """Sample ``count`` of ``ids``, sorted; the order of ``ids`` does not matter.

    Sampling is by hash, so adding or removing one id changes at most one choice.
    """
    return sorted(heapq.nsmallest(max(0, count), set(ids), key=_rank(seed, parent)))


def place(pair_id: str, *, seed: int, parent: int) -> int:
    """The first 64 bits of what :func:`draw` sorts an id by."""
    return int.from_bytes(_rank(seed, parent)(pair_id)[:8], "big")


def _rank(seed: int, parent: int) -> Callable[[str], bytes]:
    return lambda pair_id: hashlib.sha256(canonical([seed, parent, pair_id])).digest()
