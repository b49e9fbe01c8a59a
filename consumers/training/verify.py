"""A run's training file, selected again from the topics: ``retrail train --run --verify``.

The file is a function of the manifest's ranges, rules and known outcomes, and of the topics. A
document that changed or was deleted after the run is a difference, an expected one; a pair or a
weight that differs is not.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

from consumers.training.mirrors import Mirrors
from consumers.training.reproduce import find_run
from consumers.training.run import frozen_examples
from retrail_runtime import data_dir, kafka
from schemas import outcomes
from schemas.documents import Document
from schemas.outcomes import ReportedOutcome
from schemas.runs import Range, RunManifest
from schemas.settings import Settings
from trainer.data import lineage, training_file
from trainer.data.examples import TrainingExample
from trainer.data.selection import PairSource, Selector, TextSource
from trainer.registry.registry import Registry

Kind = Literal[
    "document changed",
    "document deleted",
    "document added",
    "pair missing",
    "pair added",
    "pair differs",
    "weight differs",
]

EXPECTED: frozenset[Kind] = frozenset({"document changed", "document deleted", "document added"})
"""What may differ, because documents live on after a run."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A training file that was selected again.

    Attributes:
        differences: documents or pairs by kind; none if and only if the files are equal.
    """

    manifest: RunManifest
    differences: Mapping[Kind, Sequence[str]]

    @property
    def equal(self) -> bool:
        """Whether the topics give the frozen file, byte for byte."""
        return not self.differences


def verify(
    settings: Settings,
    wanted: str,
    *,
    progress: Callable[[str, int], object] = lambda topic, count: None,
) -> Verified:
    """Select the training file of a run again from the topics, and compare.

    Args:
        wanted: a run's id, or the beginning of one.
        progress: called with a topic and how many of its records were read since the last call.

    Raises:
        InputError: there is no such run, or its training file is lost or altered.
        BrokerUnavailableError, TopicMismatchError: from Kafka; a topic may be deleted by now.
    """
    history, manifest = find_run(settings, wanted)
    frozen = frozen_examples(Registry.of(settings), manifest)
    earlier = lineage.trained(history, manifest.parent)
    reported = _reported(settings, manifest)
    claim = data_dir.claim(settings, "train")
    try:
        with closing(Mirrors(settings, claim.path, manifest.ranges[0].topic)) as mirrors:
            mirrors.catch_up(progress)
            return compare(manifest, earlier, frozen, mirrors.pairs, mirrors.documents, reported)
    finally:
        claim.lock.release()


def compare(
    manifest: RunManifest,
    earlier: Iterable[Range],
    frozen: Sequence[TrainingExample],
    pairs: PairSource,
    texts: TextSource,
    reported: Mapping[str, ReportedOutcome],
) -> Verified:
    """Compare the frozen examples with those that are selected now.

    They are selected with the texts of the frozen file, so that a change of a document is named
    once and not for each of its pairs.

    Args:
        earlier: what the parent had learned from.
        reported: outcomes by trajectory that were known to the run.
    """
    then = _texts_of(frozen)
    now = texts.get(then)
    differences: dict[Kind, list[str]] = defaultdict(list)
    for doc_id, text in sorted(then.items()):
        if doc_id not in now:
            differences["document deleted"].append(doc_id)
        elif now[doc_id].embedded_text() != text:
            differences["document changed"].append(doc_id)

    def select(without: Set[str]) -> Sequence[TrainingExample]:
        selector = Selector(
            pairs,
            _TextsOfThen(texts, then, without),
            manifest.rules,
            manifest.parent,
            manifest.config.seed,
            lambda pair: reported.get(pair.trajectory_id) or pair.outcome,
        )
        return selector.select(manifest.ranges, earlier).examples

    selected = select(frozenset())
    if added := _texts_of(selected).keys() - then.keys():
        differences["document added"] = sorted(added)
        selected = select(added)
    if training_file.digest(training_file.dump(selected)) != manifest.training_file.digest:
        for kind, pair_id in _pair_differences(frozen, selected):
            differences[kind].append(pair_id)
    return Verified(manifest, differences)


@dataclass(frozen=True, slots=True)
class _TextsOfThen:
    """Documents as a run read them: those of its file, else those of now but for some."""

    now: TextSource
    then: Mapping[str, str]
    without: Set[str]

    def known(self, doc_ids: Iterable[str]) -> set[str]:
        wanted = set(doc_ids)
        return (self.now.known(wanted) | (wanted & self.then.keys())) - self.without

    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]:
        wanted = self.known(doc_ids)
        found = dict(self.now.get(wanted - self.then.keys()))
        for doc_id in wanted & self.then.keys():
            found[doc_id] = Document(doc_id=doc_id, text=self.then[doc_id])
        return found


def _pair_differences(
    frozen: Iterable[TrainingExample], selected: Iterable[TrainingExample]
) -> Iterable[tuple[Kind, str]]:
    then, now = ({row.pair_id: row for row in some} for some in (frozen, selected))
    for pair_id in sorted(then.keys() | now.keys()):
        if pair_id not in now:
            yield "pair missing", pair_id
        elif pair_id not in then:
            yield "pair added", pair_id
        elif replace(now[pair_id], weight=0.0) != replace(then[pair_id], weight=0.0):
            yield "pair differs", pair_id
        elif now[pair_id] != then[pair_id]:
            yield "weight differs", pair_id


def _texts_of(some: Iterable[TrainingExample]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for example in some:
        texts[example.positive_id] = example.positive_text
        texts.update(example.negatives)
    return texts


def _reported(settings: Settings, manifest: RunManifest) -> Mapping[str, ReportedOutcome]:
    """The outcomes that the run knew, as far as they are still on the topic.

    A report that another one replaced since may be compacted away; then a weight differs.
    """
    known: dict[str, ReportedOutcome] = {}
    if manifest.rules.outcome_policy == "all":
        return known
    for topic in {span.topic for span in manifest.outcome_ranges}:
        ends = lineage.ends_of(manifest.outcome_ranges, topic)
        for record in kafka.read_to_end(settings, topic, end=ends):
            change = outcomes.read_change(record.key, record.value)
            if change.key is not None and change.value is not None:
                known[change.key] = change.value.outcome
            elif change.key is not None:
                known.pop(change.key, None)
    return known
