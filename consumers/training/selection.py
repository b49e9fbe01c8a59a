"""What enters a run: new pairs, and a replay of earlier ones against forgetting."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from consumers.training.training_pairs import CHUNK
from schemas.documents import Document
from schemas.pairs import LabelledPair
from schemas.runs import Caps, Intensity, Range, SelectionRules
from schemas.settings import Settings, TrainVariant
from trainer.data import examples, training_caps, weighting
from trainer.data.examples import Trainable, TrainingExample
from trainer.data.lineage import draw, shuffled

MAX_NEW = 80_000
"""New pairs in one run, and a quarter as many replayed ones: ids must fit into a manifest."""

OVER = "over the limit"
OUTCOME = "outcome"
STALE = "stale"
NO_TEXT = "no text"
REPEATED = "repeated"

FactorOf = Callable[[LabelledPair], float]
"""What the outcome policy makes of a pair's weight; 0 leaves it out."""


class PairSource(Protocol):
    """What a selection reads of a :class:`~consumers.training.training_pairs.PairStore`."""

    def within(self, ranges: Iterable[Range]) -> Iterable[LabelledPair]: ...
    def trainable_ids(self, ranges: Iterable[Range], variant: TrainVariant) -> Sequence[str]: ...
    def get(self, pair_ids: Sequence[str]) -> Sequence[LabelledPair]: ...
    def repeats(self, ranges: Iterable[Range]) -> int: ...


class TextSource(Protocol):
    """What a selection and the gate read of a :class:`~consumers.training.text_store.TextStore`."""

    def known(self, doc_ids: Iterable[str]) -> set[str]: ...
    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]: ...
    def all_ids(self) -> Sequence[str]: ...


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


def rules_of(settings: Settings) -> SelectionRules:
    """What the settings say about which pairs train."""
    return SelectionRules(
        caps=Caps(
            agent=settings.train_cap_agent,
            tenant=settings.train_cap_tenant,
            trajectory=settings.train_cap_trajectory,
            query=settings.train_cap_query,
            document=settings.train_cap_document,
            run=training_caps.ORDINARY_RUN,
        ),
        max_staleness=settings.train_max_staleness,
        replay=settings.train_replay,
        outcome_policy=settings.train_outcome_policy,
        outcome_factor=settings.outcome_factor,
    )


@dataclass(frozen=True, slots=True)
class Selector:
    """Chooses pairs, looks up their texts and weighs them.

    Attributes:
        pairs, texts: local copies of the topics.
        ancestors: the parent, its parent, … to the first release.
        factor_of: what the outcome policy makes of a pair.
        limit: new pairs at most; of more, so many are drawn.
    """

    pairs: PairSource
    texts: TextSource
    rules: SelectionRules
    ancestors: Sequence[int]
    seed: int
    variant: TrainVariant = "reweight"
    factor_of: FactorOf = lambda pair: 1.0
    limit: int = MAX_NEW

    def select(self, ranges: Iterable[Range], earlier: Iterable[Range]) -> Selection:
        """What a run over ``ranges`` trains on.

        1. Of the pairs in ``ranges``: those that train under the variant, each id once, that are
           not held out.
        2. Of these: whose outcome the policy takes, not mined under too old a retriever, with a
           positive that has a text.
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
        # A document can be deleted between the two looks at the texts.
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
        capped = training_caps.apply(kept, self.rules.caps, seed=self.seed, parent=self._parent)
        left_out += capped.left_out
        chosen = set(self._drawn(capped.pairs, self.limit))
        left_out[OVER] += len(capped.pairs) - len(chosen)
        return [pair for pair in capped.pairs if pair.pair_id in chosen], +left_out

    def _replay(self, earlier: Iterable[Range], wanted: int) -> list[LabelledPair]:
        """At most ``wanted`` pairs by id; fewer where caps bind."""
        ids = shuffled(
            self.pairs.trainable_ids(earlier, self.variant), seed=self.seed, parent=self._parent
        )
        kept: list[LabelledPair] = []
        for start in range(0, len(ids), CHUNK):
            if len(kept) >= wanted:
                break
            kept += self._passing(self.pairs.get(ids[start : start + CHUNK]), Counter())
        drawn = set(self._drawn(kept, wanted))
        kept = [pair for pair in kept if pair.pair_id in drawn]
        capped = training_caps.apply(kept, self.rules.caps, seed=self.seed, parent=self._parent)
        return list(capped.pairs)

    def _passing(self, pairs: Sequence[LabelledPair], left_out: Counter[str]) -> list[LabelledPair]:
        """Step 2; ``left_out`` counts what does not pass, each pair under the first reason."""
        with_text = self.texts.known(pair.positive for pair in pairs)
        reasons: tuple[tuple[str, Callable[[LabelledPair], bool]], ...] = (
            (OUTCOME, lambda pair: self.factor_of(pair) == 0),
            (STALE, lambda pair: is_stale(pair, self.ancestors, self.rules.max_staleness)),
            (NO_TEXT, lambda pair: pair.positive not in with_text),
        )
        kept = []
        for pair in pairs:
            reason = next((name for name, applies in reasons if applies(pair)), None)
            if reason is None:
                kept.append(pair)
            else:
                left_out[reason] += 1
        return kept

    def _scaled(
        self, built: Sequence[TrainingExample], pairs: Sequence[LabelledPair]
    ) -> tuple[TrainingExample, ...]:
        factors = {pair.pair_id: self.factor_of(pair) for pair in pairs}
        return tuple(
            replace(example, weight=example.weight * factors[example.pair_id]) for example in built
        )

    def _drawn(self, pairs: Iterable[LabelledPair], count: int) -> list[str]:
        return draw((p.pair_id for p in pairs), count, seed=self.seed, parent=self._parent)

    @property
    def _parent(self) -> int:
        return self.ancestors[0]


def is_stale(pair: LabelledPair, ancestors: Sequence[int], most: int | None) -> bool:
    """Whether a pair was mined under a retriever more than ``most`` releases behind the parent.

    Counted are the releases of the parent's line that are newer than the pair's retriever, which
    need not be of that line itself. A pair that does not say its retriever is never stale.

    Off by default: a verdict is about a document, and does not age with the retriever that found
    it. What ages is the negatives, which a better retriever would rank lower by itself; and a new
    revision, which mines months of trajectories again, would lose most of them to a bound.

    Args:
        ancestors: the parent, its parent, … to the first release.
        most: ``None`` for any.
    """
    if most is None or pair.retriever_version is None:
        return False
    return sum(version > pair.retriever_version for version in ancestors) > most


def _documents(pairs: Iterable[LabelledPair]) -> Iterable[str]:
    for pair in pairs:
        yield pair.positive
        yield from pair.negatives
