"""Repeats a run: ``retrail train --run`` trains its child, ``--verify`` selects its training file.

Neither writes to a topic or to the registry. The model is a function of the parent's model, the
frozen file and the configuration, so on the same machine it has the digest of the released one.
Several processes, started by torchrun, sum gradients in another order than a single one, and Adam
amplifies the difference; such a model is compared by its vectors.

The training file is a function of the manifest's ranges, rules and known outcomes, and of the
topics. A document that was changed or deleted after the run is an expected difference; a different
pair or weight is not. (Earlier queries are compared by the parent's vectors, whose last digits
differ on another machine.)
"""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import structlog

from consumers.training.history import find_run
from consumers.training.metrics import OnStep, reporting
from consumers.training.mirrors import Mirrors
from consumers.training.run import frozen_examples, train_child
from retrail_runtime import files, kafka
from schemas import events
from schemas.documents import Document
from schemas.errors import InputError
from schemas.events import ReportedOutcome
from schemas.releases import Release
from schemas.runs import Range, RunManifest
from schemas.settings import Settings
from trainer.data import lineage
from trainer.data.earlier import Encode
from trainer.data.examples import TrainingExample, dump_file, file_digest
from trainer.data.selection import PairSource, Selector, TextSource
from trainer.fit.processes import SINGLE_PROCESS, Processes
from trainer.model.encoder import Encoder, Vectors
from trainer.registry.manifest import digest_of
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

COMPARED = 256
"""Number of queries whose vectors are compared if the files differ."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """The result of repeating a run.

    Attributes:
        folder: of the model.
        digest: of its files.
        released: the release of the run.
        similarity: smallest cosine between the vectors of both models, over queries of the run; 1
            if the files are equal.
        erasures: ids of those that took pairs out of the training file.
    """

    folder: Path
    digest: str
    released: Release
    similarity: float
    erasures: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether the model's files equal those of the released one."""
        return self.digest == self.released.model.digest


def reproduce(
    settings: Settings,
    wanted: str,
    *,
    on_step: OnStep | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> Reproduced | None:
    """Train the child of a run again, into ``<data dir>/repeats/<run id>``.

    Args:
        wanted: id of a run, or its prefix.
        on_step: called after every optimiser step.
        processes: the process group; every process makes this call.

    Returns:
        The result in the first process, which alone writes; ``None`` in the others.

    Raises:
        InputError: there is no such run, it has no release yet, or its training file is missing.
        ModelError: the parent's model is missing or was changed.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    history, manifest = find_run(settings, wanted)
    known = history.releases.by_version
    released = known.get(manifest.version)
    if released is None:
        raise InputError(
            f"Run {manifest.run_id} has no release yet, so there is nothing to compare with. The "
            "active trainer completes it; `retrail train` completes it at once."
        )
    registry = Registry.of(settings)
    report = train_child(
        registry,
        known[manifest.parent].model,
        manifest,
        on_step=reporting(lambda: None, on_step),
        processes=processes,
    )
    if not processes.first:
        return None
    folder = settings.data_dir / "repeats" / manifest.run_id
    _write(folder, report.encoder.save)
    digest, similarity = digest_of(folder), 1.0
    if digest != released.model.digest:
        queries = [example.query for example in frozen_examples(registry, manifest)[:COMPARED]]
        similarity = smallest_cosine(report.encoder, registry.load(released.model), queries)
    erased = registry.notes.read(manifest.training_file.location).erasures
    found = Reproduced(folder, digest, released, similarity, erased)
    log.info("run reproduced", run=manifest.run_id, folder=str(folder), equal=found.equal)
    return found


def smallest_cosine(one: Encoder, two: Encoder, queries: Sequence[str]) -> float:
    """Smallest cosine between the two encoders' vectors of a query."""
    return float((one.encode_queries(queries) * two.encode_queries(queries)).sum(axis=1).min())


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace ``folder``; it never contains an incomplete model."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


Kind = Literal[
    "erasure",
    "document changed",
    "document deleted",
    "document added",
    "pair missing",
    "pair added",
    "pair differs",
    "weight differs",
]

EXPECTED: frozenset[Kind] = frozenset(
    {"erasure", "document changed", "document deleted", "document added"}
)
"""Expected differences: documents may change after a run, and pairs be erased."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The comparison of a training file with a repeated selection.

    Attributes:
        differences: ids of documents or pairs, by kind; empty if and only if the files are equal.
            After an erasure only its id is given: without the erased pairs caps, replay and weights
            of the others differ, too.
    """

    manifest: RunManifest
    differences: Mapping[Kind, Sequence[str]]

    @property
    def equal(self) -> bool:
        """Whether the selection equals the frozen file byte for byte."""
        return not self.differences


def verify(
    settings: Settings,
    wanted: str,
    *,
    progress: Callable[[str, int], object] = lambda topic, count: None,
) -> Verified:
    """Select the training file of a run again from the topics, and compare it.

    Args:
        wanted: id of a run, or its prefix.
        progress: called with a topic and the number of records read since the last call.

    Raises:
        InputError: there is no such run, or its training file is missing or was changed.
        BrokerUnavailableError, TopicMismatchError: from Kafka; a topic may be deleted by now.
    """
    history, manifest = find_run(settings, wanted)
    registry = Registry.of(settings)
    frozen = frozen_examples(registry, manifest)
    if erased := registry.notes.read(manifest.training_file.location).erasures:
        return Verified(manifest, {"erasure": erased})
    earlier = lineage.trained(history, manifest.parent)
    reported = _reported(settings, manifest)

    def encode(queries: Sequence[str]) -> Vectors:
        parent = history.releases.by_version[manifest.parent].model
        return registry.load(parent).encode_queries(queries)

    claim = files.claim(settings, "train")
    try:
        with closing(Mirrors(settings, claim.path, manifest.ranges[0].topic)) as mirrors:
            mirrors.catch_up(progress)
            return compare(
                manifest, earlier, frozen, mirrors.pairs, mirrors.documents, reported, encode
            )
    finally:
        claim.lock.release()


def compare(
    manifest: RunManifest,
    earlier: Iterable[Range],
    frozen: Sequence[TrainingExample],
    pairs: PairSource,
    texts: TextSource,
    reported: Mapping[str, ReportedOutcome],
    encode: Encode,
) -> Verified:
    """Compare the frozen examples with a repeated selection.

    The selection uses the texts of the frozen file, so a changed document is reported once and not
    for each of its pairs.

    Args:
        earlier: ranges that the parent was trained on.
        frozen: examples of the training file.
        pairs, texts: current contents of the topics.
        reported: outcomes known to the run, by trajectory.
        encode: by the parent's model.
    """
    then = _documents_of(frozen)
    now = texts.get(then)
    differences: dict[Kind, list[str]] = defaultdict(list)
    for doc_id, document in sorted(then.items()):
        if doc_id not in now:
            differences["document deleted"].append(doc_id)
        elif now[doc_id].fingerprint() != document.fingerprint():
            differences["document changed"].append(doc_id)

    def select(without: Set[str]) -> Sequence[TrainingExample]:
        selector = Selector(
            pairs,
            _TextsOfThen(texts, then, without),
            manifest.rules,
            manifest.parent,
            manifest.config.seed,
            encode,
            lambda pair: reported.get(pair.trajectory_id) or pair.outcome,
        )
        return selector.select(manifest.ranges, earlier).examples

    selected = select(frozenset())
    if added := _documents_of(selected).keys() - then.keys():
        differences["document added"] = sorted(added)
        selected = select(added)
    if file_digest(dump_file(selected)) != manifest.training_file.digest:
        for kind, pair_id in _pair_differences(frozen, selected):
            differences[kind].append(pair_id)
    return Verified(manifest, differences)


@dataclass(frozen=True, slots=True)
class _TextsOfThen:
    """Documents of the training file, and current ones for others except ``without``."""

    now: TextSource
    then: Mapping[str, Document]
    without: Set[str]

    def known(self, doc_ids: Iterable[str]) -> Mapping[str, str]:
        wanted = set(doc_ids) - self.without
        then = {doc_id: self.then[doc_id].owner for doc_id in wanted & self.then.keys()}
        return {**self.now.known(wanted), **then}

    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]:
        wanted = self.known(doc_ids).keys()
        then = {doc_id: self.then[doc_id] for doc_id in wanted & self.then.keys()}
        return {**self.now.get(wanted - self.then.keys()), **then}


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


def _documents_of(some: Iterable[TrainingExample]) -> dict[str, Document]:
    """The documents of examples; the text of each is the one that the encoder reads."""
    return {
        doc_id: Document(
            doc_id=doc_id,
            text=text,
            tenant=example.tenant if doc_id in example.private else None,
        )
        for example in some
        for doc_id, text in example.documents
    }


def _reported(settings: Settings, manifest: RunManifest) -> Mapping[str, ReportedOutcome]:
    """The outcomes known to the run that are still on the topic.

    A report that was replaced after the run may be compacted away; then a weight differs.
    """
    known: dict[str, ReportedOutcome] = {}
    if manifest.rules.outcome_policy == "all" and manifest.rules.earlier is None:
        return known
    for topic in {span.topic for span in manifest.outcome_ranges}:
        ends = lineage.ends_of(manifest.outcome_ranges, topic)
        for record in kafka.read_to_end(settings, topic, end=ends):
            change = events.read_outcome(record.key, record.value)
            if change.key is not None and change.value is not None:
                known[change.key] = change.value.outcome
            elif change.key is not None:
                known.pop(change.key, None)
    return known
