"""From pairs, which hold ids, to examples, which hold texts: what a training file freezes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from schemas.pairs import LabelledPair
from schemas.runs import Intensity
from trainer.data.draws import HELD_OUT_SHARE, is_held_out
from trainer.data.weighting import Variant, weight

TextOf = Callable[[str], str | None]
"""The text of a document that the encoder reads; ``None`` if it is unknown or deleted."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A query, a document that served it, and documents that served it less.

    Attributes:
        negatives: (id, text), rejected ones first.
        rejected: how many leading negatives were browsed and rejected.
        weight: see :mod:`trainer.data.weighting`.
    """

    pair_id: str
    query: str
    positive_id: str
    positive_text: str
    negatives: tuple[tuple[str, str], ...]
    rejected: int
    weight: float


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples by pair id, and what was left out.

    Attributes:
        examples: sorted by ``pair_id``.
        left_out: number of pairs by reason: ``irrelevant``, ``held out``, ``repeated`` (a pair id
            counts once), ``no text`` (the positive is unknown or deleted).
        negatives_left_out: number of negatives by reason: ``no text``, ``positive`` (its text is
            the positive's), ``repeated`` (its text occurs before it).
    """

    examples: tuple[TrainingExample, ...]
    left_out: Mapping[str, int]
    negatives_left_out: Mapping[str, int]


def trainable(
    pairs: Iterable[LabelledPair],
    share: float = HELD_OUT_SHARE,
    variant: Variant = "reweight",
) -> "Trainable":
    """Part the pairs that train from those that do not: relevant, not held out, each id once.

    Under the variant ``naive`` irrelevant ones train too: every browsed document is a positive.
    """
    first: dict[str, LabelledPair] = {}
    left_out: Counter[str] = Counter()
    for pair in pairs:
        if pair.verdict != "relevant" and variant != "naive":
            left_out["irrelevant"] += 1
        elif is_held_out(pair.query, share):
            left_out["held out"] += 1
        elif pair.pair_id in first:
            left_out["repeated"] += 1
        else:
            first[pair.pair_id] = pair
    return Trainable(tuple(first[key] for key in sorted(first)), dict(left_out))


@dataclass(frozen=True, slots=True)
class Trainable:
    """Pairs that train, sorted by ``pair_id``, and the number left out by reason."""

    pairs: tuple[LabelledPair, ...]
    left_out: Mapping[str, int]


def build(
    chosen: Trainable, text_of: TextOf, intensity: Intensity, variant: Variant = "reweight"
) -> Examples:
    """Look the texts up and weigh the pairs.

    A rejected document that is left out lowers ``rejected``, so the count stays that of the
    leading rejected negatives.
    """
    examples = []
    left_out = Counter(chosen.left_out)
    negatives_left_out: Counter[str] = Counter()
    for pair in chosen.pairs:
        positive = text_of(pair.positive)
        if positive is None:
            left_out["no text"] += 1
            continue
        seen = {positive}
        negatives: list[tuple[str, str]] = []
        rejected = 0
        for index, doc_id in enumerate(pair.negatives):
            text = text_of(doc_id)
            if text is None:
                negatives_left_out["no text"] += 1
            elif text == positive:
                negatives_left_out["positive"] += 1
            elif text in seen:
                negatives_left_out["repeated"] += 1
            else:
                seen.add(text)
                negatives.append((doc_id, text))
                rejected += index < pair.rejected
        examples.append(
            TrainingExample(
                pair_id=pair.pair_id,
                query=pair.query,
                positive_id=pair.positive,
                positive_text=positive,
                negatives=tuple(negatives),
                rejected=rejected,
                weight=weight(pair, intensity, variant),
            )
        )
    return Examples(tuple(examples), dict(left_out), dict(negatives_left_out))
