"""Selection of a run's pairs: new ones, a replay of earlier ones, and earlier queries."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from schemas.documents import Document, may_see
from schemas.events import Outcome
from schemas.pairs import LabelledPair
from schemas.runs import Intensity, Range, SelectionRules
from schemas.settings import TrainSettings
from trainer.data import caps, examples, weighting
from trainer.data.draws import draw, draw_of, is_held_out
from trainer.data.earlier import RULE, Earlier, Encode, earlier
from trainer.data.examples import OTHER_TENANT, Chosen, TrainingExample
from trainer.data.weighting import Variant, outcome_factor

CHUNK = 500
"""Pairs that are read at once."""

OVER = "over the limit"
REASONS = (
    *("irrelevant", "held out", "repeated", "no text", OTHER_TENANT, "outcome", OVER),
    *(f"{group} cap" for group in caps.GROUPS),
)
"""Why a pair does not train: all keys of :attr:`Selection.left_out`."""


def why_left_out(pair: LabelledPair, left_out: Mapping[str, int]) -> list[str]:
    """Why a pair of a run's ranges did not train; several reasons if a manifest leaves it open.

    Args:
        left_out: of the run's manifest.
    """
    if pair.verdict != "relevant":
        return ["irrelevant"]
    if is_held_out(pair.query):
        return ["held out"]
    return [reason for reason in REASONS[2:] if left_out.get(reason)]


class PairSource(Protocol):
    """Source of pairs, such as a local mirror of ``labelled-pairs``.

    ``in_turn`` gives the trainable pairs in the order of their draw, from ``start`` on.
    """

    def within(self, ranges: Iterable[Range]) -> Iterable[LabelledPair]: ...
    def in_turn(self, ranges: Iterable[Range], start: int) -> Iterable[LabelledPair]: ...
    def get(self, pair_ids: Sequence[str]) -> Sequence[LabelledPair]: ...
    def repeats(self, ranges: Iterable[Range]) -> int: ...


class TextSource(Protocol):
    """Source of documents, such as a local mirror of ``documents``.

    ``known`` gives the owners of the documents that exist.
    """

    def known(self, doc_ids: Iterable[str]) -> Mapping[str, str]: ...
    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """The contents of a training file.

    Attributes:
        pair_ids: ids of the new pairs in ``examples``, sorted.
        replayed: ids of the replayed ones, sorted.
        earlier: number of examples of the new pairs' earlier queries.
        left_out: number of pairs in the ranges that do not train, by reason.
    """

    pair_ids: tuple[str, ...]
    replayed: tuple[str, ...]
    earlier: int
    examples: tuple[TrainingExample, ...]
    left_out: Mapping[str, int]
    intensity: Intensity


def rules_of(settings: TrainSettings) -> SelectionRules:
    """The selection rules in the settings."""
    return SelectionRules(
        caps=caps.caps_of(settings),
        limit=settings.train_max_pairs,
        replay=settings.train_replay,
        outcome_policy=settings.train_outcome_policy,
        earlier=RULE if settings.train_earlier_queries else None,
    )


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects pairs, looks up their texts and computes their weights.

    Those that are not selected are read one by one, so memory grows with the largest run, and
    otherwise by 80 bytes a pair.

    Attributes:
        pairs, texts: sources; equal contents give an equal selection.
        parent, seed: seed of all draws.
        encode: by the parent's model; called at most once.
        outcome_of: latest known outcome of a pair's trajectory.
    """

    pairs: PairSource
    texts: TextSource
    rules: SelectionRules
    parent: int
    seed: int
    encode: Encode
    outcome_of: Callable[[LabelledPair], Outcome] = lambda pair: pair.outcome
    variant: Variant = "reweight"

    def select(self, ranges: Iterable[Range], before: Iterable[Range]) -> Selection:
        """Select the training data of a run over ``ranges``.

        1. Take the pairs in ``ranges`` that train under the variant and are not held out, each id
           once.
        2. Keep those whose outcome the policy accepts, and whose positive has a text that the
           pair's tenant may see.
        3. Apply the caps and the limit.
        4. Add a replay: a seeded sample of the parent's training pairs that pass 1 to 3 as well.
           (From the same topic only: a new revision mines the same trajectories again, and its
           predecessor's pairs should not return.)
        5. Add pairs for the earlier queries of new pairs (:mod:`trainer.data.earlier`), within the
           caps, and at most one for each new pair.
        6. Measure the intensity over 1 to 4, look up the texts, and compute the weights. Negatives
           that the pair's tenant may not see are dropped.

        Args:
            ranges: of the new pairs.
            before: ranges that the parent was trained on.
        """
        new, left_out = self._new(list(ranges))
        replayed = self._replay(
            before, min(round(self.rules.replay * len(new)), self.rules.limit // 4)
        )
        made = self._earlier(new)
        documents = self.texts.get(_documents([*new, *replayed]))
        texts = {doc_id: document.embedded_text() for doc_id, document in documents.items()}
        owners = {doc_id: found.owner for doc_id, found in documents.items() if found.owner}
        # A document can be deleted between the two reads.
        intensity = weighting.measure(p for p in (*new, *replayed) if p.positive in texts)
        built = [
            examples.build(Chosen(tuple(some), counts), texts.get, intensity, self.variant, owners)
            for some, counts in (
                (new, left_out),
                (replayed, {}),
                ([one.pair for one in made.values()], {}),
            )
        ]
        ids = [tuple(example.pair_id for example in some.examples) for some in built]
        of_pairs = self._scaled([*built[0].examples, *built[1].examples], [*new, *replayed])
        return Selection(
            pair_ids=ids[0],
            replayed=ids[1],
            earlier=len(ids[2]),
            examples=(*of_pairs, *self._marked(built[2].examples, made)),
            left_out=built[0].left_out,
            intensity=intensity,
        )

    def _new(self, ranges: Sequence[Range]) -> tuple[list[LabelledPair], Mapping[str, int]]:
        left_out = Counter(repeated=self.pairs.repeats(ranges))
        candidates = caps.Candidates(self.seed, self.parent)
        for some in _chunks(self.pairs.within(ranges)):
            found = examples.trainable(some, variant=self.variant)
            left_out.update(found.left_out)
            candidates.add(self._passing(found.pairs, left_out))
        distinct = candidates.distinct()
        left_out["repeated"] += len(candidates.ids) - len(distinct)
        capped = candidates.within(self.rules.caps, left_out, distinct)
        drawn = candidates.first(capped, self.rules.limit)
        left_out[OVER] += len(capped) - len(drawn)
        ids = [pair_id.decode() for pair_id in candidates.ids[drawn]]
        return sorted(self.pairs.get(ids), key=lambda pair: pair.pair_id), +left_out

    def _earlier(self, new: Sequence[LabelledPair]) -> dict[str, Earlier]:
        """Step 5, by the pairs' ids, sorted."""
        if self.rules.earlier is None:
            return {}
        right = [pair for pair in new if self.outcome_of(pair) == "correct"]
        made = {one.pair.pair_id: one for one in earlier(right, self.encode, self.rules.earlier)}
        pairs = [one.pair for one in made.values()]
        within = caps.apply(pairs, self.rules.caps, seed=self.seed, parent=self.parent).pairs
        ids = draw([pair.pair_id for pair in within], len(new), seed=self.seed, parent=self.parent)
        return {pair_id: made[pair_id] for pair_id in ids}

    def _replay(self, before: Iterable[Range], wanted: int) -> list[LabelledPair]:
        """At most ``wanted`` pairs by id; fewer if caps bind."""
        kept: list[LabelledPair] = []
        start = draw_of(f"{self.seed}/{self.parent}")
        for some in _chunks(self.pairs.in_turn(before, start) if wanted else ()):
            kept += self._passing(some, Counter())
            if len(kept) >= wanted:
                break
        found = kept[:wanted]
        return list(caps.apply(found, self.rules.caps, seed=self.seed, parent=self.parent).pairs)

    def _passing(self, pairs: Sequence[LabelledPair], left_out: Counter[str]) -> list[LabelledPair]:
        """Step 2; ``left_out`` counts each dropped pair under its first reason."""
        owners = self.texts.known(pair.positive for pair in pairs)
        kept = []
        for pair in pairs:
            if self._factor(pair) == 0:
                left_out["outcome"] += 1
            elif pair.positive not in owners:
                left_out["no text"] += 1
            elif not may_see(pair.tenant, owners[pair.positive]):
                left_out[OTHER_TENANT] += 1
            else:
                kept.append(pair)
        return kept

    def _marked(
        self, built: Sequence[TrainingExample], made: Mapping[str, Earlier]
    ) -> Iterator[TrainingExample]:
        for example in self._scaled(built, [one.pair for one in made.values()]):
            one = made[example.pair_id]
            yield replace(example, weight=example.weight * one.factor, found_by=one.found_by)

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


def _chunks(pairs: Iterable[LabelledPair]) -> Iterator[list[LabelledPair]]:
    remaining = iter(pairs)
    while some := list(islice(remaining, CHUNK)):
        yield some


def _documents(pairs: Iterable[LabelledPair]) -> Iterable[str]:
    for pair in pairs:
        yield pair.positive
        yield from pair.negatives
