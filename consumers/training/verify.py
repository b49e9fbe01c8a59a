"""Whether a run's frozen training file is what the topics give: ``retrail train --run --verify``.

The pairs come from the manifest's ranges by its ids, the texts from ``documents`` as they are now.
So a document that changed or was deleted after the run is a difference, an expected one; a pair or
a weight that differs is not.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from consumers.training import outcome_store, text_store
from consumers.training.child import TrainingFileLost, frozen_examples
from consumers.training.repeat import find
from consumers.training.training_ledger import Ledger
from retrail_runtime import kafka
from retrail_runtime.kafka import Record, require_broker
from schemas.errors import InputError
from schemas.outcomes import ReportedOutcome
from schemas.pairs import LabelledPair
from schemas.runs import Range, RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import examples, lineage, outcome_policy, training_file, weighting
from trainer.data.examples import Trainable, TrainingExample
from trainer.registry.registry import Registry

Kind = Literal[
    "document changed",
    "document deleted",
    "document added",
    "pair lost",
    "pair differs",
    "weight differs",
    "intensity differs",
]

EXPECTED: frozenset[Kind] = frozenset({"document changed", "document deleted", "document added"})
"""What may differ, because documents live on after a run."""

TOLD_EVERY = 1000
"""Records between two calls of ``progress``."""

Progress = Callable[[str, int], None]
"""Called with a topic and how many of its records were read since the last call."""

FactorOf = Callable[[LabelledPair], float]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the topics give otherwise than the file; ``subject``: a document or a pair."""

    kind: Kind
    subject: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found.

    Attributes:
        version: of the release that the run makes.
        digest: of the rebuilt file.
        differences: in order of kind and subject; none if and only if the files are equal.
    """

    manifest: RunManifest
    version: int
    digest: str
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether the topics give the frozen file, byte for byte."""
        return self.digest == self.manifest.training_file.digest

    def by_kind(self) -> dict[Kind, list[str]]:
        """Subjects by kind."""
        found: dict[Kind, list[str]] = defaultdict(list)
        for difference in self.differences:
            found[difference.kind].append(difference.subject)
        return dict(found)


def verify(
    settings: Settings, wanted: str, *, progress: Progress = lambda topic, count: None
) -> Verified:
    """Rebuild the training file of a run from the topics, and compare.

    1. The pairs: of the manifest's ranges those with its new ids, of the ranges that the parent had
       learned from those with its replayed ids; of several with one id the first.
    2. The texts: what ``documents`` says now.
    3. The weights: by the manifest's intensity, rules and known outcomes.

    Args:
        wanted: a run's id, or the beginning of one.

    Raises:
        InputError: there is no such run, or its training file is lost or altered.
        BrokerUnavailableError, TopicMismatchError: from Kafka; a topic may be deleted by now.
    """
    topics = Topics.of(settings)
    require_broker(settings, [topics.training_runs, topics.retriever_releases, topics.documents])
    ledger = Ledger(settings)
    history = ledger.refresh()
    run = find(history, wanted)
    manifest = ledger.manifest(run)
    try:
        frozen = frozen_examples(Registry.of(settings), manifest)
    except TrainingFileLost as error:
        raise InputError(
            f"The training file of run {run.run_id} cannot be verified: {error}"
        ) from error
    pairs = _pairs(settings, manifest.ranges, manifest.pair_ids, progress)
    replayed = set(manifest.replayed)
    if replayed:
        earlier = lineage.trained(history, run.parent)
        pairs |= _pairs(settings, earlier, replayed, progress)
    wanted_texts = {
        doc_id for pair in pairs.values() for doc_id in (pair.positive, *pair.negatives)
    }
    texts = _texts(settings, topics.documents, wanted_texts | _texts_of(frozen).keys(), progress)
    factor_of = _factor_of(settings, manifest, {p.trajectory_id for p in pairs.values()}, progress)
    return compare(manifest, run.version, frozen, pairs, texts, factor_of)


def compare(
    manifest: RunManifest,
    version: int,
    frozen: Sequence[TrainingExample],
    pairs: Mapping[str, LabelledPair],
    texts: Mapping[str, str],
    factor_of: FactorOf = lambda pair: 1.0,
) -> Verified:
    """Compare the frozen examples with what pairs and texts give.

    Args:
        pairs: by id; those that the topics still hold.
        texts: by doc id, as of now; those that exist.
        factor_of: what the outcome policy made of a pair's weight.
    """
    ids = (*manifest.pair_ids, *manifest.replayed)
    found = [pairs[pair_id] for pair_id in ids if pair_id in pairs]
    differences = [Difference("pair lost", pair_id) for pair_id in ids if pair_id not in pairs]
    if len(found) == len(ids) and weighting.measure(found) != manifest.intensity:
        differences.append(Difference("intensity differs", manifest.run_id))
    then = _texts_of(frozen)
    rows = {example.pair_id: example for example in frozen}
    # With the texts of then, so that a document's change is told once and not of each of its pairs.
    for example in _rebuilt(manifest, found, then, factor_of):
        row = rows.get(example.pair_id)
        if row is None or replace(row, weight=example.weight) != example:
            differences.append(Difference("pair differs", example.pair_id))
        elif row.weight != example.weight:
            differences.append(Difference("weight differs", example.pair_id))
    now = _rebuilt(manifest, found, texts, factor_of)
    differences += _document_differences(then, texts, _texts_of(now).keys())
    digest = training_file.digest(training_file.dump(now))
    return Verified(
        manifest, version, digest, tuple(sorted(differences, key=lambda d: (d.kind, d.subject)))
    )


def _document_differences(
    then: Mapping[str, str], texts: Mapping[str, str], now: Collection[str]
) -> Iterable[Difference]:
    for doc_id, text in then.items():
        if doc_id not in texts:
            yield Difference("document deleted", doc_id)
        elif texts[doc_id] != text:
            yield Difference("document changed", doc_id)
    for doc_id in set(now).difference(then):
        yield Difference("document added", doc_id)


def _rebuilt(
    manifest: RunManifest,
    pairs: Sequence[LabelledPair],
    texts: Mapping[str, str],
    factor_of: FactorOf,
) -> tuple[TrainingExample, ...]:
    """The examples of pairs; a pair whose positive has no text gives none."""
    built = examples.build(
        Trainable(tuple(pairs), {}), texts.get, manifest.intensity, manifest.config.variant
    )
    factors = {pair.pair_id: factor_of(pair) for pair in pairs}
    return tuple(
        replace(example, weight=example.weight * factors[example.pair_id])
        for example in built.examples
    )


def _texts_of(some: Iterable[TrainingExample]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for example in some:
        texts[example.positive_id] = example.positive_text
        texts.update(example.negatives)
    return texts


def _pairs(
    settings: Settings, ranges: Iterable[Range], ids: Collection[str], progress: Progress
) -> dict[str, LabelledPair]:
    """The pairs with these ids in ``ranges``, of several with one id the first."""
    by_topic: dict[str, list[Range]] = defaultdict(list)
    for span in ranges:
        by_topic[span.topic].append(span)
    wanted, found = set(ids), dict[str, LabelledPair]()
    for topic, spans in by_topic.items():
        starts: dict[int, int] = {}
        for span in spans:
            starts[span.partition] = min(span.start, starts.get(span.partition, span.start))
        records = kafka.read_to_end(settings, topic, starts, lineage.ends_of(spans, topic))
        for record in _told(records, topic, progress):
            if any(
                span.partition == record.partition and span.start <= record.offset < span.end
                for span in spans
            ):
                pair = _pair(record)
                if pair is not None and pair.pair_id in wanted:
                    found.setdefault(pair.pair_id, pair)
    return found


def _pair(record: Record) -> LabelledPair | None:
    """The pair of a record; none of what the trainer passed over too."""
    try:
        return LabelledPair.model_validate_json(record.value or b"")
    except ValueError:
        return None


def _texts(
    settings: Settings, topic: str, ids: Collection[str], progress: Progress
) -> dict[str, str]:
    """What the encoder reads of the documents with these ids, without those that do not exist."""
    texts: dict[str, str] = {}
    for record in _told(kafka.read_to_end(settings, topic), topic, progress):
        try:
            doc_id, document = text_store.read(record)
        except ValueError:
            continue
        if doc_id not in ids:
            continue
        if document is None:
            texts.pop(doc_id, None)
        else:
            texts[doc_id] = document.embedded_text()
    return texts


def _factor_of(
    settings: Settings, manifest: RunManifest, trajectories: Collection[str], progress: Progress
) -> FactorOf:
    """The outcome policy over the reports that the run knew, as far as they are still there.

    A report that another one replaced since may be compacted away; then a weight differs.
    """
    rules = manifest.rules
    if rules is None or rules.outcome_policy == "all":
        return lambda pair: 1.0
    known: dict[str, ReportedOutcome] = {}
    for topic in {span.topic for span in manifest.outcome_ranges}:
        ends = lineage.ends_of(manifest.outcome_ranges, topic)
        for record in _told(kafka.read_to_end(settings, topic, end=ends), topic, progress):
            try:
                trajectory_id, report = outcome_store.read(record)
            except ValueError:
                continue
            if report is None:
                known.pop(trajectory_id, None)
            elif trajectory_id in trajectories:
                known[trajectory_id] = report.outcome
    policy, factor = rules.outcome_policy, rules.outcome_factor
    return lambda pair: outcome_policy.apply(
        policy, known.get(pair.trajectory_id) or pair.outcome, factor
    )


def _told(records: Iterable[Record], topic: str, progress: Progress) -> Iterable[Record]:
    count = 0
    for count, record in enumerate(records, start=1):
        yield record
        if count % TOLD_EVERY == 0:
            progress(topic, TOLD_EVERY)
    progress(topic, count % TOLD_EVERY)
