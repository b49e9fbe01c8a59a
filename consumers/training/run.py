"""One training run, from new pairs to a release."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from confluent_kafka import Producer

from consumers import releases
from consumers.tasks import StoppedError
from consumers.training import comparison, gate, metrics
from consumers.training.history import RunHistory
from consumers.training.metrics import OnStep, reporting
from consumers.training.mirrors import Mirrors
from schemas.base import canonical
from schemas.errors import InputError, ModelError, RegistryError, TopicMismatchError
from schemas.releases import GateDecision, Model, Release
from schemas.runs import Range, RunManifest, run_id
from schemas.settings import Settings
from trainer.data import candidates, lineage
from trainer.data.examples import TrainingExample
from trainer.data.lineage import History
from trainer.data.releases import shipped
from trainer.data.selection import Selector, rules_of
from trainer.fit import finetune
from trainer.fit.checkpoint import Checkpoint
from trainer.fit.finetune import TrainingError, TrainingReport
from trainer.fit.processes import SINGLE_PROCESS, Processes
from trainer.model import presets
from trainer.model.encoder import Vectors
from trainer.registry.card import card, steps_csv
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

CHECKPOINT = "checkpoint.pt"
"""In the work directory, while a child is trained."""

_LEFT_OUT = {
    "no text": "are about documents that are not loaded (`retrail documents load PATH`)",
    "held out": "are of queries that are held out for the gate (a fifth of all)",
    "irrelevant": "are about documents that did not help the agent",
    "outcome": "are of trajectories that RETRAIL_TRAIN_OUTCOME_POLICY leaves out",
    "repeated": "repeat pairs that were read before",
    "other tenant": "are about documents that their tenant may not see",
}
"""Messages for the reasons in :class:`trainer.data.selection.Selection`, with remedies."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """The inputs of a run.

    Attributes:
        mirrors: local mirrors, which another thread keeps updating.
        history: used only by the run while it lasts.
        check: called between short steps; raises :class:`StoppedError` when the run must stop.
        on_step: called after every optimiser step, in the run's thread.
        asked: the run was requested by a user, so it trains even if the child cannot ship.
    """

    settings: Settings
    producer: Producer
    mirrors: Mirrors
    history: RunHistory
    check: Callable[[], None]
    on_step: OnStep | None = None
    asked: bool = False

    @property
    def registry(self) -> Registry:
        """The registry of models and training files."""
        return Registry.of(self.settings)


def train_new(context: RunContext, ends: Mapping[int, int]) -> Release | str:
    """Train a child on the pairs before ``ends`` that are new to the live lineage.

    1. Choose the ranges up to ``ends`` that the live lineage was not trained on and that are not
       quarantined. The run's id is the hash of parent and ranges. Count the held-out queries: if
       the child could not ship, train only if asked.
    2. Select pairs (:mod:`trainer.data.selection`): each id once, relevant, not held out, within
       the caps; the others are counted by reason. Add a seeded sample of the lineage's earlier
       pairs, and pairs for queries that found nothing. Measure the intensity.
    3. Freeze the training file into the registry, unless an erasure came since 2: then the run
       begins again.
       *A crash before 4* leaves only a file without a manifest.
    4. Write the manifest, with the run's version, which is one above the highest.
       *A crash from here on*: the next active trainer completes 5 to 9 from the manifest and the
       frozen file: the same run, version and, on the same machine, model.
    5. Train the child from the parent's model.
       *A crash meanwhile*: the repeated run goes on from the last checkpoint in the work directory.
    6. Publish the child into the registry atomically.
       *A crash after 6*: the repeated run finds the child and does not train again.
    7. Evaluate parent and child on held-out queries over a pool of documents; the gate decides.
    8. Write the model card and the per-query results beside the child, if there is one, and write
       the release. A child that passed is a candidate: the index worker decides on it and makes it
       live. No run starts until then.
       *A crash after 8*: the repeated run does only 9.
    9. With RETRAIL_GATE=trainer the decision is final: if the gate shipped the child, its parent is
       still live and ``live`` has not changed since 8, write ``live``.

    Returns:
        The release; or the reason why there is none, with a remedy.

    Raises:
        StoppedError: from ``context.check``, another trainer was faster, or an erasure came.
        RetrailError: the run cannot continue.
    """
    history = context.history.refresh()
    live = history.releases.live
    assert live is not None, "a trainer waits for the first release"
    if lost := lineage.without_run(history, live.version):
        raise TopicMismatchError(
            f"training-runs has no manifest of run {lost[0].run_id}, which made release "
            f"{lost[0].version} of the live lineage: the topic was recreated. "
            f"`retrail promote {lineage.first_of(history, live.version)}` starts a new lineage, "
            "which trains on all pairs again."
        )
    ranges = lineage.new_ranges(history, context.mirrors.pairs.topic, ends)
    if why := _why_none(context, history, live.version, ranges):
        return why
    manifest = _freeze(context, history, live.version, ranges)
    if isinstance(manifest, str):
        metrics.RUNS.labels(result="empty").inc()
        return manifest
    context.check()
    context.history.announce(context.producer, manifest)
    log.info(
        "run announced",
        run=manifest.run_id,
        version=manifest.version,
        parent=manifest.parent,
        pairs=manifest.pairs,
        replayed=manifest.replayed,
        earlier=manifest.earlier,
        left_out=manifest.left_out,
    )
    return finish(context, manifest)


def finish(context: RunContext, manifest: RunManifest) -> Release:
    """Steps 5 to 9 of :func:`train_new`, without those that are done."""
    with metrics.RUN_SECONDS.time():
        known = context.history.refresh().releases
        release = known.by_version.get(manifest.version)
        if release is None:
            release = _release(context, manifest)
            context.check()
            if release.model != known.by_version[manifest.parent].model:
                text = card(release, manifest)
                context.registry.write_beside(release.model, "md", text)
            releases.write_release(context.producer, context.settings, release)
            metrics.RUNS.labels(result=release.decision).inc()
            log.info(
                "release written",
                version=release.version,
                decision=release.decision,
                reason=release.reason,
            )
        _go_live(context, release)
    return release


def train_child(
    registry: Registry,
    parent: Model,
    manifest: RunManifest,
    *,
    check: Callable[[], None] = lambda: None,
    on_step: OnStep | None = None,
    processes: Processes = SINGLE_PROCESS,
    checkpoint: Checkpoint | None = None,
) -> TrainingReport:
    """Train the child of a run, without writing anything.

    A model is a function of its parent's model, the frozen training file and the configuration, so
    it can be computed again (``retrail train --run``).

    Args:
        registry: has the parent's model and the training file.
        check: called between long steps; its exceptions end the training.
        on_step: called after every optimiser step; its exceptions end the training.
        processes: the process group; every process makes this call.
        checkpoint: see :func:`trainer.fit.finetune.finetune`.

    Raises:
        InputError: the training file is missing or was changed.
        ModelError: the parent's model is missing or was changed.
        TrainingError: see :func:`trainer.fit.finetune.finetune`.
    """
    frozen = frozen_examples(registry, manifest)
    check()
    encoder = registry.load(parent, trains=True)
    check()
    return finetune.finetune(
        encoder,
        frozen,
        manifest.config,
        on_step=on_step,
        processes=processes,
        checkpoint=checkpoint,
    )


def frozen_examples(registry: Registry, manifest: RunManifest) -> tuple[TrainingExample, ...]:
    """The examples of a run's training file.

    Raises:
        InputError: the file is missing or was changed.
        RegistryError: the registry is unavailable; the file may be readable later.
    """
    try:
        return registry.load_training_file(manifest.training_file)
    except RegistryError:
        raise
    except ModelError as error:
        raise InputError(str(error)) from error


def _why_none(context: RunContext, history: History, parent: int, ranges: tuple[Range, ...]) -> str:
    """Step 1; why there is no run now, with a remedy, or an empty string."""
    if (version := candidates.under_way(history.releases)) is not None:
        return (
            f"release {version} is a candidate, and the index worker has not decided on it yet "
            "(`retrail releases`); the pairs enter the next run"
        )
    if not ranges or history.run(run_id(parent, ranges)) is not None:
        return (
            f"there are no new pairs since the last run (release {parent} is live); pairs come "
            "from agents' trajectories, `retrail pairs` lists them"
        )
    questions = comparison.questions(context.settings, context.mirrors, history, parent, ranges)
    hold = gate.certain_hold(questions, context.settings)
    log.info(
        "held-out queries counted",
        usable=len(questions.held_out),
        wanted=context.settings.gate_min_queries,
        can_ship=not hold,
    )
    if not hold or context.asked:
        return ""
    metrics.RUNS.labels(result="postponed").inc()
    return f"a child could not ship: {hold}"


def _freeze(
    context: RunContext, history: History, parent: int, ranges: tuple[Range, ...]
) -> RunManifest | str:
    """Steps 2 and 3; or the reason why there is no training step, with a remedy.

    Raises:
        StoppedError: see :func:`train_new`.
    """
    settings, mirrors = context.settings, context.mirrors
    folder = context.registry.open(history.releases.by_version[parent].model)
    config = finetune.config_of(settings, presets.preset(settings.train_preset, folder))
    rules = rules_of(settings)
    erased = mirrors.pairs.erasures
    with mirrors.outcomes.snapshot() as reported:

        def encode(queries: Sequence[str]) -> Vectors:
            model = history.releases.by_version[parent].model
            encoder = context.registry.load(model)
            return encoder.encode_queries(queries, progress=lambda *_: context.check())

        selector = Selector(
            mirrors.pairs, mirrors.documents, rules, parent, config.seed, encode, reported.of
        )
        selected = selector.select(ranges, lineage.trained(history, parent))
        outcome_ranges = reported.ranges
    for reason, count in selected.left_out.items():
        metrics.PAIRS_EXCLUDED.labels(reason=reason).inc(count)
    try:
        finetune.plan(selected.examples, config)
    except TrainingError:
        return too_few(len(selected.pair_ids), selected.left_out)
    frozen = context.registry.store_training_file(settings.retriever, selected.examples)
    if len(mirrors.erasures.refresh()) > len(erased):
        if all(run.training_file.location != frozen.location for run in history.runs):
            context.registry.discard(frozen)
        raise StoppedError("Data was erased while pairs were selected; they are selected again.")
    return RunManifest(
        run_id=run_id(parent, ranges),
        version=history.next_version(),
        retriever=settings.retriever,
        parent=parent,
        created_at=datetime.now(UTC),
        ranges=ranges,
        pairs=len(selected.pair_ids),
        replayed=len(selected.replayed),
        earlier=selected.earlier,
        left_out=dict(selected.left_out),
        intensity=selected.intensity,
        config=config,
        training_file=frozen,
        outcome_ranges=outcome_ranges,
        rules=rules,
    )


def _release(context: RunContext, manifest: RunManifest) -> Release:
    """Steps 5 to 7; a run without a child is released as rejected, so that it is not repeated.

    Raises:
        ModelError: the parent's model is missing or was changed.
    """
    history = context.history.history
    parent = history.releases.by_version[manifest.parent].model
    try:
        model = _child(context, parent, manifest)
    except (TrainingError, InputError) as failure:
        model = parent
        decision = GateDecision(
            decision="reject",
            reason=f"the run has no child, its model is the parent's: {failure}",
        )
    else:
        decision = comparison.compared(
            context.settings, context.mirrors, history, manifest, model, context.check
        )
    return Release(
        version=manifest.version,
        retriever=manifest.retriever,
        parent=manifest.parent,
        run_id=manifest.run_id,
        model=model,
        created_at=datetime.now(UTC),
        candidate=decision.decision == "ship" and context.settings.gate != "trainer",
        **dict(decision),
    )


def too_few(count: int, left_out: Mapping[str, int]) -> str:
    """Why the new pairs give no training step, with remedies."""
    reasons = [
        f"{number:,} {_LEFT_OUT.get(reason, f'were left out ({reason})')}"
        for reason, number in sorted(left_out.items(), key=lambda item: -item[1])
    ]
    return (
        f"of {count + sum(left_out.values()):,} new pairs {count:,} can train, and a training step "
        "needs two queries, or one with a negative"
        + (f". The others: {'; '.join(reasons)}" if reasons else "")
    )


def _child(context: RunContext, parent: Model, manifest: RunManifest) -> Model:
    """Steps 5 and 6.

    The child's location is a hash of its inputs, so a published model there is the child.
    """
    function = [
        parent.digest,
        manifest.training_file.digest,
        manifest.config.model_dump(mode="json"),
    ]
    home = f"{manifest.retriever}/{hashlib.sha256(canonical(function)).hexdigest()[:16]}"
    registry, version = context.registry, manifest.version
    published = registry.published(home, version)
    if published is None:
        # An erasure rewrites the training file.
        erased = registry.notes.read(manifest.training_file.location).erasures
        checkpoint = Checkpoint(context.mirrors.folder / CHECKPOINT, " ".join((home, *erased)))
        report = train_child(
            registry,
            parent,
            manifest,
            check=context.check,
            on_step=reporting(context.check, context.on_step),
            checkpoint=checkpoint,
        )
        published = registry.publish(home, version, report.encoder.save)
        registry.write_beside(published, "steps.csv", steps_csv(report.steps))
        checkpoint.remove()
    return published


def _go_live(context: RunContext, release: Release) -> None:
    """Step 9; the check right before the write stops a trainer that lost the lease."""
    known = context.history.refresh().releases
    live = shipped(known, release.version, datetime.now(UTC))
    if live is not None:
        context.check()
        releases.write_live(context.producer, context.settings, live)
        log.info("release shipped", version=live.version, previous=live.previous)
    elif release.candidate:
        log.info("release is a candidate; the index worker decides", version=release.version)
    elif release.decision == "ship" and known.live and known.live.version != release.version:
        log.warning(
            "release not made live: another one became live meanwhile",
            version=release.version,
            live=known.live.version,
        )
