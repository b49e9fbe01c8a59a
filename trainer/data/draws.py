"""Choices that a hash makes: which queries are held out, and which pairs are drawn."""

import hashlib
import heapq
from collections.abc import Callable, Iterable

from schemas.base import canonical

HELD_OUT_SHARE = 0.2


def normalize_query(query: str) -> str:
    """The query without case and spacing: spellings that differ only in these are one query.

    >>> normalize_query("  What IS\\na Trajectory? ")
    'what is a trajectory?'
    """
    return " ".join(query.casefold().split())


def is_held_out(query: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether a query is for evaluation only: a hash of it decides, the same in every run.

    Args:
        query: as asked; it is normalized here.
        share: of all queries, 0 to 1. Queries held out at a share are held out at any larger one.
    """
    digest = hashlib.sha256(normalize_query(query).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def draw(ids: Iterable[str], count: int, *, seed: int, parent: int) -> list[str]:
    """``count`` of ``ids``, sorted: the same ones for the same seed and parent, in any order.

    Drawn by hash, so that one id more or less changes one choice and not all.
    """
    return sorted(heapq.nsmallest(max(0, count), set(ids), key=_rank(seed, parent)))


def shuffled(ids: Iterable[str], *, seed: int, parent: int) -> list[str]:
    """All of ``ids`` in the order in which :func:`draw` takes them."""
    return sorted(set(ids), key=_rank(seed, parent))


def _rank(seed: int, parent: int) -> Callable[[str], bytes]:
    return lambda pair_id: hashlib.sha256(canonical([seed, parent, pair_id])).digest()
