"""What training would give if every label were true: the queries of the agents, what serves them.

The oracle has no judge and no miner. From the searches of the same trajectories, without held-out
queries, it pairs each query with a document that serves the agent's need: preferably one that the
agent opened, then one among the hits, then any. It takes searches in the same order of preference,
because a query that misses its target carries little information: an oracle without this order
learned less than the system (docs/lab/learning.md). Its negatives are the other hits of the search,
as the miner's are, without documents that serve the need.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.events import Browse, Event, Search
from simulation.corpus import Need
from simulation.scripted import digest, draw
from trainer.data.draws import is_held_out, normalize_query
from trainer.data.examples import TrainingExample


class Asked(NamedTuple):
    """A search, and what the agent opened before the next one."""

    search: Search
    opened: frozenset[str]


def examples(
    trajectories: Mapping[str, Sequence[Event]],
    needs: Mapping[str, Need],
    text_of: Callable[[str], str],
    *,
    count: int,
    seed: int,
) -> list[TrainingExample]:
    """At most ``count`` examples, drawn by the seed.

    First the searches of which the agent opened what serves, then those that showed it, then all;
    of equal ones the last of every trajectory first.

    Args:
        trajectories: events by trajectory id.
        needs: what each trajectory was after.
        text_of: what the encoder reads of a document.
    """
    ranked: dict[tuple[int, int], list[TrainingExample]] = {}
    for name, events in trajectories.items():
        for age, asked in enumerate(_searches(events)):
            distance, serving = _nearest(asked, needs[name])
            positive = draw(seed, "serves", name).choice(sorted(serving))
            example = _example(name, asked.search, positive, needs[name], text_of)
            ranked.setdefault((distance, age), []).append(example)
    chosen: list[TrainingExample] = []
    for _, some in sorted(ranked.items()):
        some.sort(key=lambda example: digest(seed, "oracle", example.pair_id))
        chosen += some[: count - len(chosen)]
    return chosen


def _searches(events: Sequence[Event]) -> Iterator[Asked]:
    """Those that may be trained on, the last one first, each query once."""
    seen: set[str] = set()
    opened: set[str] = set()
    for event in reversed(events):
        if isinstance(event, Browse):
            opened.add(event.doc_id)
        if isinstance(event, Search):
            if normalize_query(event.query) not in seen and not is_held_out(event.query):
                yield Asked(event, frozenset(opened))
            seen.add(normalize_query(event.query))
            opened = set()


def _nearest(asked: Asked, need: Need) -> tuple[int, set[str]]:
    """How near the search came to what serves (0: opened, 1: shown, 2: neither), and to what."""
    shown = need.relevant.keys() & {hit.doc_id for hit in asked.search.hits}
    opened = shown & asked.opened
    if opened:
        return 0, opened
    return (1, shown) if shown else (2, set(need.relevant))


def _example(
    name: str, search: Search, positive: str, need: Need, text_of: Callable[[str], str]
) -> TrainingExample:
    text = text_of(positive)
    others = {hit.doc_id: text_of(hit.doc_id) for hit in search.hits if hit.doc_id != positive}
    return TrainingExample(
        pair_id=digest("oracle", name, search.seq),
        query=search.query,
        positive_id=positive,
        positive_text=text,
        negatives=tuple(
            (doc_id, other)
            for doc_id, other in others.items()
            if doc_id not in need.relevant and other != text
        ),
        weight=1.0,
    )
