"""What training would give if every label were true: the queries of the agents, what serves them.

The oracle has no judge and no miner. It takes the searches of the same trajectories, held-out
queries left out, and for each a document that serves the agent's need, whether the agent found it
or not. Its negatives are the other hits of that search, as the miner's are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from schemas.events import Event, Search
from simulation.corpus import Need
from simulation.draws import digest, draw
from trainer.examples import TrainingExample
from trainer.heldout import folded, is_held_out


def examples(
    trajectories: Mapping[str, Sequence[Event]],
    needs: Mapping[str, Need],
    text_of: Callable[[str], str],
    *,
    count: int,
    seed: int,
) -> list[TrainingExample]:
    """At most ``count`` examples, drawn by the seed.

    The last query of every trajectory comes first, then those before it, as far as they are needed.

    Args:
        trajectories: events by trajectory id.
        needs: what each trajectory was after.
        text_of: what the encoder reads of a document.
    """
    by_age: dict[int, list[TrainingExample]] = {}
    for name, events in trajectories.items():
        for age, search in enumerate(_searches(events)):
            by_age.setdefault(age, []).append(_example(name, search, needs[name], text_of, seed))
    chosen: list[TrainingExample] = []
    for _, some in sorted(by_age.items()):
        some.sort(key=lambda example: digest(seed, "oracle", example.pair_id))
        chosen += some[: count - len(chosen)]
    return chosen


def _searches(events: Sequence[Event]) -> Iterator[Search]:
    """Those that may be trained on, the last one first, each query once."""
    seen: set[str] = set()
    for event in reversed(events):
        if isinstance(event, Search) and folded(event.query) not in seen:
            seen.add(folded(event.query))
            if not is_held_out(event.query):
                yield event


def _example(
    name: str, search: Search, need: Need, text_of: Callable[[str], str], seed: int
) -> TrainingExample:
    positive = draw(seed, "serves", name).choice(sorted(need.relevant))
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
        rejected=0,
        weight=1.0,
    )
