"""Caps against poisoning: limits on the share of one agent, tenant, trajectory, query or document.

Anyone who can publish a trajectory can publish thousands. Pairs of a group up to its cap train as
usual; excess pairs are dropped at random (seeded) and counted.

- A share is a fraction of the pairs that remain, not of those that arrived, so a flood does not
  raise its own limit: with a cap of one half, ten thousand pairs of one agent beside a thousand of
  others are cut to a thousand.
- A share is a fraction of at least :data:`ORDINARY_RUN` pairs, so a small run loses little or
  nothing.
- Each of k groups may have 1/k, whatever the cap, so a single agent or tenant is not capped at all
  and no run is emptied.
- A document, a query or a trajectory may have :data:`FAIR` times an equal share, because some are
  naturally more frequent: with a few dozen documents, a cap of a hundredth would cut all of them to
  the rarest.
- Each cap raises the shares of the remaining groups, so the caps are applied until none binds.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from schemas.pairs import LabelledPair
from schemas.runs import Caps
from schemas.settings import TrainSettings
from trainer.data.draws import draw, normalize_query

GROUPS: dict[str, Callable[[LabelledPair], str]] = {
    "trajectory": lambda pair: pair.trajectory_id,
    "query": lambda pair: normalize_query(pair.query),
    "document": lambda pair: pair.positive,
    "agent": lambda pair: pair.agent.name,
    "tenant": lambda pair: pair.tenant,
}
"""The group of a pair for each capped field of :class:`Caps`, the finest first."""

ORDINARY_RUN = 512
"""Fewest pairs that a share is a fraction of (:attr:`Caps.run`)."""

FAIR: dict[str, float] = {"trajectory": 3.0, "query": 3.0, "document": 3.0}
"""A group may always have this multiple of an equal share; agents and tenants have 1."""

UNCAPPED = Caps(agent=1.0, tenant=1.0, trajectory=1.0, query=1.0, document=1.0, run=1)

_ROUNDING = 1e-9


def caps_of(settings: TrainSettings) -> Caps:
    """The caps of a training run."""
    return Caps(
        agent=settings.train_cap_agent,
        tenant=settings.train_cap_tenant,
        trajectory=settings.train_cap_trajectory,
        query=settings.train_cap_query,
        document=settings.train_cap_document,
        run=ORDINARY_RUN,
    )


@dataclass(frozen=True, slots=True)
class Capped:
    """Pairs within the caps.

    Attributes:
        pairs: sorted by ``pair_id``.
        left_out: number of pairs by reason: ``agent cap``, ….
    """

    pairs: tuple[LabelledPair, ...]
    left_out: Counter[str]


def apply(pairs: Iterable[LabelledPair], caps: Caps, *, seed: int, parent: int) -> Capped:
    """Drop pairs beyond the caps.

    Args:
        pairs: each id once, in any order.
        seed, parent: seed of the draw within a group.
    """
    kept = {pair.pair_id: pair for pair in pairs}
    left_out: Counter[str] = Counter()
    binding = True
    while binding:
        binding = False
        for name, group_of in GROUPS.items():
            groups: dict[str, list[str]] = defaultdict(list)
            for pair_id, pair in kept.items():
                groups[group_of(pair)].append(pair_id)
            sizes = [len(ids) for ids in groups.values()]
            most = limit(sizes, getattr(caps, name), caps.run, FAIR.get(name, 1.0))
            for ids in groups.values():
                if len(ids) > most:
                    binding = True
                    left_out[f"{name} cap"] += len(ids) - most
                    for lost in set(ids).difference(draw(ids, most, seed=seed, parent=parent)):
                        del kept[lost]
    return Capped(tuple(kept[pair_id] for pair_id in sorted(kept)), left_out)


def limit(sizes: Sequence[int], share: float, run: int, fair: float = 1.0) -> int:
    """The maximum number of pairs of one group.

    Args:
        sizes: number of pairs of each group.
        share: maximum share, above 0 and at most 1.
        run: fewest pairs that ``share`` is a fraction of.
        fair: a group may have this multiple of an equal share, whatever ``share`` is.

    Returns:
        The largest L that is at most max(``share``, ``fair`` / groups) of the pairs that remain
        when every group is cut to L; at least ``share`` · ``run``, and at least 1.
    """
    least = max(1, math.floor(share * run))
    if not sizes:
        return least
    return max(least, _level(sizes, min(1.0, max(share, fair / len(sizes)))))


def _level(sizes: Collection[int], share: float) -> int:
    """The largest L with L ≤ share · Σ min(size, L); the condition is monotone in L."""
    low, high = 0, max(sizes)
    while low < high:
        middle = (low + high + 1) // 2
        if middle <= share * sum(min(size, middle) for size in sizes) + _ROUNDING * middle:
            low = middle
        else:
            high = middle - 1
    return low
