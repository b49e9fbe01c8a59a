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
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.pairs import LabelledPair
from schemas.runs import Caps
from schemas.settings import TrainSettings
from trainer.data.draws import draw_of, normalize_query, place
from trainer.data.examples import Chosen

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


def apply(pairs: Iterable[LabelledPair], caps: Caps, *, seed: int, parent: int) -> Chosen:
    """Drop pairs beyond the caps, for the reasons ``agent cap``, ….

    Args:
        pairs: each id once, in any order.
        seed, parent: seed of the draw within a group.
    """
    candidates = Candidates(seed, parent)
    by_id = {pair.pair_id: pair for pair in pairs}
    candidates.add(by_id.values())
    left_out: Counter[str] = Counter()
    ids = candidates.ids[candidates.within(caps, left_out)]
    return Chosen(tuple(by_id[pair_id] for pair_id in sorted(map(bytes.decode, ids))), left_out)


class Candidates:
    """Pairs of which some are chosen, at 80 bytes each: id, groups, and place in the draw."""

    def __init__(self, seed: int, parent: int) -> None:
        """``seed`` and ``parent`` seed the draw within a group."""
        self._seed, self._parent = seed, parent
        self._ids = [np.empty(0, "S32")]
        self._groups = [np.empty((0, len(GROUPS)), np.uint64)]
        self._places = [np.empty(0, np.uint64)]

    def add(self, pairs: Iterable[LabelledPair]) -> None:
        """Add pairs."""
        some = list(pairs)
        groups = [[draw_of(of(pair)) for of in GROUPS.values()] for pair in some]
        places = [place(pair.pair_id, seed=self._seed, parent=self._parent) for pair in some]
        self._ids.append(np.array([pair.pair_id.encode() for pair in some], "S32"))
        self._groups.append(np.array(groups, np.uint64).reshape(-1, len(GROUPS)))
        self._places.append(np.array(places, np.uint64))

    @property
    def ids(self) -> NDArray[np.bytes_]:
        """Ids of all pairs, in the order in which they were added."""
        self._ids = [np.concatenate(self._ids)]
        return self._ids[0]

    def distinct(self) -> NDArray[np.intp]:
        """Indices of the first pair of each id."""
        return np.unique(self.ids, return_index=True)[1]

    def first(self, among: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        """Draw ``count`` of some indices."""
        return among[np.argsort(self._all_places()[among], kind="stable")[:count]]

    def within(
        self, caps: Caps, left_out: Counter[str], among: NDArray[np.intp] | None = None
    ) -> NDArray[np.intp]:
        """Indices of the pairs within the caps; ``left_out`` counts the others by cap.

        Args:
            among: indices to choose from; by default all.
        """
        self._groups = [np.concatenate(self._groups)]
        groups, places = self._groups[0], self._all_places()
        kept = np.arange(len(places)) if among is None else among
        binding = True
        while binding:
            binding = False
            for column, (name, _) in enumerate(GROUPS.items()):
                _, group, sizes = np.unique(
                    groups[kept, column], return_inverse=True, return_counts=True
                )
                most = limit(sizes, getattr(caps, name), caps.run, FAIR.get(name, 1.0))
                if not len(sizes) or sizes.max() <= most:
                    continue
                binding = True
                drawn = np.lexsort((places[kept], group))
                turn = np.arange(len(kept)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
                left_out[f"{name} cap"] += int((turn >= most).sum())
                kept = kept[drawn[turn < most]]
        return kept

    def _all_places(self) -> NDArray[np.uint64]:
        self._places = [np.concatenate(self._places)]
        return self._places[0]


def limit(
    sizes: Sequence[int] | NDArray[np.intp], share: float, run: int, fair: float = 1.0
) -> int:
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
    if not len(sizes):
        return least
    return max(least, _level(np.asarray(sizes), min(1.0, max(share, fair / len(sizes)))))


def _level(sizes: NDArray[np.intp], share: float) -> int:
    """The largest L with L ≤ share · Σ min(size, L); the condition is monotone in L."""
    low, high = 0, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        if middle <= share * int(np.minimum(sizes, middle).sum()) + _ROUNDING * middle:
            low = middle
        else:
            high = middle - 1
    return low
