"""What enters a run: new pairs, and a replay of earlier ones against forgetting."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from consumers.lineage import draw
from consumers.text_store import TextStore
from consumers.training_pairs import PairStore
from schemas.pairs import LabelledPair
from schemas.runs import Intensity, Range
from trainer import examples, weighting
from trainer.examples import Trainable, TrainingExample

MAX_NEW = 80_000
"""New pairs in one run, and a quarter as many replayed ones: ids must fit into a manifest."""

OVER = "over the limit"
OUTCOME = "outcome"

FactorOf = Callable[[LabelledPair], float]
"""What the outcome policy makes of a pair's weight; 0 leaves it out."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a manifest freezes.

    Attributes:
        pair_ids, replayed: ids of ``examples``, new and earlier ones, each sorted.
        left_out: number of pairs in the ranges that do not train, by reason.
    """

    pair_ids: tuple[str, ...]
    replayed: tuple[str, ...]
    examples: tuple[TrainingExample, ...]
    left_out: Mapping[str, int]
    intensity: Intensity


def select(
    pairs: PairStore,
    texts: TextStore,
    ranges: Iterable[Range],
    earlier: Iterable[Range],
    *,
    replay: float,
    seed: int,
    parent: int,
    limit: int = MAX_NEW,
    factor_of: FactorOf | None = None,
) -> Selection:
    """Choose pairs, look up their texts and weigh them.

    Replayed are pairs of the same topic only: a new revision mines the same trajectories again,
    and what it replaces should not come back.

    Args:
        ranges: of the new pairs.
        earlier: what the parent has learned from.
        replay: earlier pairs for each new one.
        seed, parent: decide what is drawn.
        limit: new pairs at most; of more, so many are drawn.
        factor_of: by default every pair counts fully.
    """
    ranges = list(ranges)
    new = examples.trainable(pairs.within(ranges))
    left_out = dict(new.left_out)
    if factor_of is not None:
        kept = tuple(pair for pair in new.pairs if factor_of(pair) > 0)
        if len(kept) < len(new.pairs):
            left_out[OUTCOME] = len(new.pairs) - len(kept)
        new = Trainable(kept, {})
    if repeated := pairs.repeats(ranges):
        left_out["repeated"] = left_out.get("repeated", 0) + repeated
    if len(new.pairs) > limit:
        drawn = set(draw((p.pair_id for p in new.pairs), limit, seed=seed, parent=parent))
        left_out[OVER] = len(new.pairs) - limit
        new = Trainable(tuple(p for p in new.pairs if p.pair_id in drawn), {})
    again = examples.trainable(
        pairs.get(
            draw(
                _replayable(pairs, earlier, factor_of),
                min(round(replay * len(new.pairs)), limit // 4),
                seed=seed,
                parent=parent,
            )
        )
    )
    every = [*new.pairs, *again.pairs]
    found = {
        doc_id: document.embedded_text()
        for doc_id, document in texts.get(_documents(every)).items()
    }
    intensity = weighting.measure(pair for pair in every if pair.positive in found)
    built = examples.build(Trainable(new.pairs, left_out), found.get, intensity)
    replayed = examples.build(Trainable(again.pairs, {}), found.get, intensity)
    return Selection(
        pair_ids=tuple(example.pair_id for example in built.examples),
        replayed=tuple(example.pair_id for example in replayed.examples),
        examples=_scaled(built.examples + replayed.examples, every, factor_of),
        left_out=built.left_out,
        intensity=intensity,
    )


def _replayable(
    pairs: PairStore, earlier: Iterable[Range], factor_of: FactorOf | None
) -> list[str]:
    if factor_of is None:
        return pairs.trainable_ids(earlier)
    return [pair.pair_id for pair in pairs.trainable(earlier) if factor_of(pair) > 0]


def _scaled(
    built: tuple[TrainingExample, ...], pairs: list[LabelledPair], factor_of: FactorOf | None
) -> tuple[TrainingExample, ...]:
    if factor_of is None:
        return built
    factors = {pair.pair_id: factor_of(pair) for pair in pairs}
    return tuple(
        replace(example, weight=example.weight * factors[example.pair_id]) for example in built
    )


def _documents(pairs: Iterable[LabelledPair]) -> Iterable[str]:
    for pair in pairs:
        yield pair.positive
        yield from pair.negatives
