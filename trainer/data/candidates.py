"""The state of each candidate, as a function of the records of ``retriever-releases``.

A release that passed the gate on a pool is a candidate: the index worker builds its collection and
decides on the whole corpus. The order of the records is release, decision, ``live``; the alias
follows ``live``.
"""

from typing import Literal

from trainer.data.releases import Releases

State = Literal["open", "passed", "waiting", "refused", "failed", "abandoned", "superseded"]

STATES: dict[tuple[str, bool], State] = {
    # (decision, whether the release is current)
    ("candidate", True): "open",
    ("candidate", False): "superseded",
    ("ship", True): "passed",
    ("ship", False): "superseded",
    ("pending", True): "waiting",
    ("pending", False): "superseded",
    ("hold", True): "refused",
    ("hold", False): "refused",
    ("reject", True): "refused",
    ("reject", False): "refused",
    ("failed", True): "failed",
    ("failed", False): "failed",
    ("abandoned", True): "abandoned",
    ("abandoned", False): "abandoned",
}
"""The state of a candidate that is not live, by its decision and :meth:`Releases.is_current`.

- open: to be built and decided on.
- passed: the leading index worker makes it live.
- waiting: it passed, and an operator may promote it.
- refused, failed, abandoned: decided against.
- superseded: another release became live after it was made.
"""


def state(known: Releases, version: int) -> State | None:
    """The state of a candidate; ``None`` if it is live, or no candidate."""
    release = known.by_version[version]
    is_live = known.live is not None and known.live.version == version
    if is_live or not release.candidate:
        return None
    return STATES[known.decision(version), known.is_current(version)]


def undecided(known: Releases) -> int | None:
    """The version of the open candidate; of several the first."""
    return _first(known, "open")


def passed(known: Releases) -> int | None:
    """The version of the candidate that should become live; of several the first."""
    return _first(known, "passed")


def under_way(known: Releases) -> int | None:
    """The version of the candidate that is open or should become live; no run starts meanwhile."""
    return passed(known) or undecided(known)


def kept(known: Releases) -> int | None:
    """The version whose collection is built, or kept, beside that of the live release.

    That of the candidate that is under way; without one that of the last one that waits, so that
    its promotion is a swap.
    """
    waiting = (v for v in known.by_version if state(known, v) == "waiting")
    return under_way(known) or max(waiting, default=None)


def _first(known: Releases, wanted: State) -> int | None:
    return min((v for v in known.by_version if state(known, v) == wanted), default=None)
