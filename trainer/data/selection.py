"""Selection of a run's pairs: new ones, and a replay of earlier ones against forgetting."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from schemas.documents import Document
from schemas.events import Outcome
from schemas.pairs import LabelledPair
from schemas.runs import Intensity, Range, SelectionRules
from schemas.settings import TrainSettings
from trainer.data import caps, examples, weighting
from trainer.data.draws import draw, shuffled
from trainer.data.examples import Trainable, TrainingExample
from trainer.data.weighting import Variant, outcome_factor

MAX_NEW = 80_000
"""Most new pairs in one run, all in memory; replayed ones are at most a quarter of it."""

CHUNK = 500
"""Earlier pairs that are read at once."""

OVER = "over the limit"
REASONS = (
    *("irrelevant", "held out", "repeated", "no text", "outcome", OVER),
    *(f"{group} cap" for group in caps.GROUPS),
)
"""Why a pair does not train: all keys of :attr:`Selection.left_out`."""


class PairSource(Protocol):
    """Source of pairs, such as a local mirror of ``labelled-pairs``."""

    def within(self, ranges: Iterable[Range]) -> Iterable[LabelledPair]: ...
    def trainable_ids(self, ranges: Iterable[Range]) -> Sequence[str]: ...
    def get(self, pair_ids: Sequence[str]) -> Sequence[LabelledPair]: ...
    def repeats(self, ranges: Iterable[Range]) -> int: ...


class TextSource(Protocol):
    """Source of documents, such as a local mirror of ``documents``."""

    def known(self, doc_ids: Iterable[str]) -> set[str]: ...
    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """The contents of a training file.

    Attributes:
        pair_ids: ids of the new pairs in ``examples``, sorted.
        replayed: ids of the replayed ones, sorted.
        left_out: number of pairs in the ranges that do not train, by reason.
    """

    pair_ids: tuple[str, ...]
    replayed: tuple[str, ...]
    examples: tuple[TrainingExample, ...]
    left_out: Mapping[str, int]
    intensity: Intensity


def rules_of(settings: TrainSettings) -> SelectionRules:
    """The selection rules in the settings."""
    return SelectionRules(
        caps=caps.caps_of(settings),
        replay=settings.train_replay,
        outcome_policy=settings.train_outcome_policy,
    )


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects pairs, looks up their texts and computes their weights.

    Attributes:
        pairs, texts: sources; equal contents give an equal selection.
        parent, seed: seed of all draws.
        outcome_of: latest known outcome of a pair's trajectory.
        limit: maximum number of new pairs; more are sampled down to it.
    """

    pairs: PairSource
    texts: TextSource
    rules: SelectionRules
    parent: int
    seed: int
    outcome_of: Callable[[LabelledPair], Outcome] = lambda pair: pair.outcome
    variant: Variant = "reweight"
    limit: int = MAX_NEW

    def select(self, ranges: Iterable[Range], earlier: Iterable[Range]) -> Selection:
        """Select the training data of a run over ``ranges``.

        1. Take the pairs in ``ranges`` that train under the variant and are not held out, each id
           once.
        2. Keep those whose outcome the policy accepts and whose positive has a text.
        3. Apply the caps and the limit.
        4. Add a replay: a seeded sample of the parent's training pairs that pass 1 to 3 as well.
           (From the same topic only: a new revision mines the same trajectories again, and its
           predecessor's pairs should not return.)
        5. Measure the intensity over both, look up the texts, and compute the weights.

        Args:
            ranges: of the new pairs.
            earlier: ranges that the parent was trained on.
        """
        ranges = list(ranges)
        new, left_out = self._new(ranges)
        replayed = self._replay(earlier, min(round(self.rules.replay * len(new)), self.limit // 4))
        texts = {
            doc_id: document.embedded_text()
            for doc_id, document in self.texts.get(_documents([*new, *replayed])).items()
        }
        # A document can be deleted between the two reads.
        intensity = weighting.measure(p for p in (*new, *replayed) if p.positive in texts)
        built = [
            examples.build(Trainable(tuple(some), counts), texts.get, intensity, self.variant)
            for some, counts in ((new, left_out), (replayed, {}))
        ]
        ids = [tuple(example.pair_id for example in some.examples) for some in built]
        return Selection(
            pair_ids=ids[0],
            replayed=ids[1],
            examples=self._scaled([*built[0].examples, *built[1].examples], [*new, *replayed]),
            left_out=built[0].left_out,
            intensity=intensity,
        )

    def _new(self, ranges: Sequence[Range]) -> tuple[list[LabelledPair], Mapping[str, int]]:
        found = examples.trainable(self.pairs.within(ranges), variant=self.variant)
        left_out = Counter(found.left_out)
        left_out["repeated"] += self.pairs.repeats(ranges)
        kept = self._passing(found.pairs, left_out)
        capped = caps.apply(kept, self.rules.caps, seed=self.seed, parent=self.parent)
        left_out += capped.left_out
        drawn = set(self._drawn(capped.pairs, self.limit))
        left_out[OVER] += len(capped.pairs) - len(drawn)
        return [pair for pair in capped.pairs if pair.pair_id in drawn], +left_out

    def _replay(self, earlier: Iterable[Range], wanted: int) -> list[LabelledPair]:
        """At most ``wanted`` pairs by id; fewer if caps bind."""
        ids = shuffled(self.pairs.trainable_ids(earlier), seed=self.seed, parent=self.parent)
        kept: list[LabelledPair] = []
        for start in range(0, len(ids), CHUNK):
            if len(kept) >= wanted:
                break
            kept += self._passing(self.pairs.get(ids[start : start + CHUNK]), Counter())
        drawn = set(self._drawn(kept, wanted))
        kept = [pair for pair in kept if pair.pair_id in drawn]
        return list(caps.apply(kept, self.rules.caps, seed=self.seed, parent=self.parent).pairs)

    def _passing(self, pairs: Sequence[LabelledPair], left_out: Counter[str]) -> list[LabelledPair]:
        """Step 2; ``left_out`` counts each dropped pair under its first reason."""
        with_text = self.texts.known(pair.positive for pair in pairs)
        kept = []
        for pair in pairs:
            if self._factor(pair) == 0:
                left_out["outcome"] += 1
            elif pair.positive not in with_text:
                left_out["no text"] += 1
            else:
                kept.append(pair)
        return kept

    def _scaled(
        self, built: Sequence[TrainingExample], pairs: Sequence[LabelledPair]
    ) -> tuple[TrainingExample, ...]:
        factors = {pair.pair_id: self._factor(pair) for pair in pairs}
        return tuple(
            replace(example, weight=example.weight * factors[example.pair_id]) for example in built
        )

    def _factor(self, pair: LabelledPair) -> float:
        policy = self.rules.outcome_policy
        return 1.0 if policy == "all" else outcome_factor(policy, self.outcome_of(pair))

    def _drawn(self, pairs: Iterable[LabelledPair], count: int) -> list[str]:
        return draw((p.pair_id for p in pairs), count, seed=self.seed, parent=self.parent)


def _documents(pairs: Iterable[LabelledPair]) -> Iterable[str]:
    for pair in pairs:
        yield pair.positive
        yield from pair.negatives
