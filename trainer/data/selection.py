"""What enters a run: new pairs, and a replay of earlier ones against forgetting."""

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
"""New pairs in one run, and a quarter as many replayed ones: all of them are in memory."""

CHUNK = 500
"""Earlier pairs that are read at once."""

OVER = "over the limit"
OUTCOME = "outcome"
NO_TEXT = "no text"
REPEATED = "repeated"


class PairSource(Protocol):
    """Where a selection reads pairs, for instance a local copy of ``labelled-pairs``."""

    def within(self, ranges: Iterable[Range]) -> Iterable[LabelledPair]: ...
    def trainable_ids(self, ranges: Iterable[Range]) -> Sequence[str]: ...
    def get(self, pair_ids: Sequence[str]) -> Sequence[LabelledPair]: ...
    def repeats(self, ranges: Iterable[Range]) -> int: ...


class TextSource(Protocol):
    """Where a selection reads documents, for instance a local copy of ``documents``."""

    def known(self, doc_ids: Iterable[str]) -> set[str]: ...
    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """What a training file holds.

    Attributes:
        pair_ids, replayed: ids of ``examples``, new and earlier ones, each sorted.
        left_out: number of pairs in the ranges that do not train, by reason.
    """

    pair_ids: tuple[str, ...]
    replayed: tuple[str, ...]
    examples: tuple[TrainingExample, ...]
    left_out: Mapping[str, int]
    intensity: Intensity


def rules_of(settings: TrainSettings) -> SelectionRules:
    """The rules that the settings ask for."""
    return SelectionRules(
        caps=caps.caps_of(settings),
        replay=settings.train_replay,
        outcome_policy=settings.train_outcome_policy,
    )


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects pairs, looks up their texts and weighs them.

    Attributes:
        pairs, texts: sources; equal contents give an equal selection.
        parent, seed: decide every draw.
        outcome_of: outcome of a pair's trajectory, as far as it is known.
        limit: new pairs at most; of more, so many are drawn.
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
        """What a run over ``ranges`` trains on.

        1. Of the pairs in ``ranges``: those that train under the variant, each id once, that are
           not held out.
        2. Of these: those whose outcome the policy takes, with a positive that has a text.
        3. Of these: what the caps leave, and the limit.
        4. A replay: of what the parent has learned from, drawn by the seed, the pairs that pass 1
           to 3 as well. (Of the same topic only: a new revision mines the same trajectories again,
           and what it replaces should not come back.)
        5. Measure intensity over both, look the texts up, and weigh.

        Args:
            ranges: of the new pairs.
            earlier: what the parent has learned from.
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
        left_out[REPEATED] += self.pairs.repeats(ranges)
        kept = self._passing(found.pairs, left_out)
        capped = caps.apply(kept, self.rules.caps, seed=self.seed, parent=self.parent)
        left_out += capped.left_out
        drawn = set(self._drawn(capped.pairs, self.limit))
        left_out[OVER] += len(capped.pairs) - len(drawn)
        return [pair for pair in capped.pairs if pair.pair_id in drawn], +left_out

    def _replay(self, earlier: Iterable[Range], wanted: int) -> list[LabelledPair]:
        """At most ``wanted`` pairs by id; fewer where caps bind."""
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
        """Step 2; ``left_out`` counts what does not pass, each pair under the first reason."""
        with_text = self.texts.known(pair.positive for pair in pairs)
        kept = []
        for pair in pairs:
            if self._factor(pair) == 0:
                left_out[OUTCOME] += 1
            elif pair.positive not in with_text:
                left_out[NO_TEXT] += 1
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
