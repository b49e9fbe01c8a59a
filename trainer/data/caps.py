"""Caps against poisoning: how much of a run one agent, tenant, trajectory, query or document gets.

Whoever can publish trajectories can publish many. Up to its cap a group trains like all others;
pairs beyond it are left out, drawn by the seed, and counted.

- A share is one of the pairs that are left, not of those that came. So a flood does not raise its
  own limit: ten thousand pairs of one agent beside a thousand of others are cut to a thousand
  under a cap of one half.
- A share is taken of :data:`ORDINARY_RUN` pairs at least. So a small run, of a small corpus or
  started by a person or by the age of its pairs, loses little or nothing.
- Of k groups each may have 1/k, whatever the cap. So a single agent or tenant is not capped at all
  (there is nobody whose pairs it would crowd out), and no run is emptied.
- A document, a query or a trajectory may have :data:`FAIR` times as much, because some are asked
  for more often, or longer, than others: among a few dozen documents, a cap of a hundredth would
  cut all of them to the rarest.
- What one cap leaves out raises the shares of what is left, so all are applied until none binds.
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
"""What is capped, the finest first; each name is a field of :class:`Caps`."""

ORDINARY_RUN = 512
"""Pairs that a share is taken of at least (:attr:`Caps.run`)."""

FAIR: dict[str, float] = {"trajectory": 3.0, "query": 3.0, "document": 3.0}
"""Times an equal share that a group may always have; an agent and a tenant once."""

UNCAPPED = Caps(agent=1.0, tenant=1.0, trajectory=1.0, query=1.0, document=1.0, run=1)

_ROUNDING = 1e-9


def caps_of(settings: TrainSettings) -> Caps:
    """The caps of a run."""
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
    """What caps leave.

    Attributes:
        pairs: sorted by ``pair_id``.
        left_out: number of pairs by reason: ``agent cap``, ….
    """

    pairs: tuple[LabelledPair, ...]
    left_out: Counter[str]


def apply(pairs: Iterable[LabelledPair], caps: Caps, *, seed: int, parent: int) -> Capped:
    """Leave out what lies beyond the caps.

    Args:
        pairs: each id once, in any order.
        seed, parent: decide which pairs of a group stay.
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
    """Pairs that one group may have.

    Args:
        sizes: pairs of each group.
        share: above 0, at most 1.
        run: pairs that the share is taken of at least.
        fair: times an equal share that a group may have, whatever ``share`` is.

    Returns:
        The largest L that is at most ``share``, or ``fair`` equal shares if that is more, of what
        is left when every group is cut to L; but not below ``share`` of ``run``, nor below 1.
    """
    least = max(1, math.floor(share * run))
    if not sizes:
        return least
    return max(least, _level(sizes, min(1.0, max(share, fair / len(sizes)))))


def _level(sizes: Collection[int], share: float) -> int:
    """The largest L with L ≤ share · Σ min(size, L); such L are all those up to one of them."""
    low, high = 0, max(sizes)
    while low < high:
        middle = (low + high + 1) // 2
        if middle <= share * sum(min(size, middle) for size in sizes) + _ROUNDING * middle:
            low = middle
        else:
            high = middle - 1
    return low
