"""One training run, from new pairs to a release."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from confluent_kafka import Producer

from consumers import metrics, releases
from consumers.training.child import OnStep, TrainingFileLost, train_child
from consumers.training.outcome_store import KnownOutcomes, OutcomeStore
from consumers.training.progress import comparing, reporting
from consumers.training.selection import FactorOf, Selector, rules_of
from consumers.training.text_store import TextStore
from consumers.training.training_gate import compare
from consumers.training.training_ledger import Ledger
from consumers.training.training_pairs import PairStore
from schemas.base import canonical
from schemas.pairs import LabelledPair
from schemas.releases import Model, Release
from schemas.runs import Range, RunManifest, SelectionRules, run_id
from schemas.settings import Settings
from trainer.data import lineage
from trainer.data.lineage import History, Run
from trainer.data.outcome_policy import apply
from trainer.evaluate.gate import GateDecision
from trainer.fit import finetune
from trainer.fit.finetune import NothingToLearnError, TrainingDivergedError
from trainer.model import presets
from trainer.registry.card import card, steps_csv
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)


class Interrupted(Exception):
    """The run was told to stop; whoever is active next repeats it from its manifest."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run works with.

    Attributes:
        pairs, texts, outcomes: local copies, which another thread goes on filling.
        ledger: used by nobody else while the run lasts.
        check: raises :class:`Interrupted` when the run must stop; called between small steps.
        on_step: told about every optimiser step, from the thread of the run.
    """

    settings: Settings
    producer: Producer
    pairs: PairStore
    texts: TextStore
    outcomes: OutcomeStore
    ledger: Ledger
    check: Callable[[], None]
    on_step: OnStep | None = None

    @property
    def registry(self) -> Registry:
        """Where models and training files lie."""
        return Registry.of(self.settings)


def train_new(bench: Bench, ends: Mapping[int, int]) -> Release | None:
    """Make a run of the pairs before ``ends`` that are new to the live lineage.

    1. Choose ranges: up to ``ends``, what neither the live lineage has learned from nor a rollback
       has quarantined. The run's id is the hash of parent and ranges.
    2. Choose pairs (:mod:`consumers.training.selection`): each id once, relevant, not held out,
       within the caps; what is left out is counted by reason. A seeded sample of the lineage's
       earlier pairs joins them. Measure intensity.
    3. Freeze the training file into the registry.
       *A crash before 4*: nothing has happened, but for a file that nobody names.
    4. Get the manifest acknowledged; its offset is the version.
       *A crash from here on*: the next active trainer repeats what is missing of 5 to 9 from the
       manifest and the frozen file: the same run, version and, on the same machine, model.
    5. Train the child from the parent's model.
    6. Publish the child into the registry, whole or not at all.
       *A crash after 6*: the repetition finds it and does not train again.
    7. Evaluate parent and child on the held-out queries seen so far; the gate decides.
    8. Put the model card beside the child, if there is one, and get the release acknowledged.
       *A crash after 8*: the repetition only does 9.
    9. If it passed, and its parent is still live and nobody has changed ``live`` since 8: get
       ``live`` acknowledged.

    Returns:
        The release; ``None`` if there was nothing new to learn from.

    Raises:
        Interrupted: by ``bench.check``.
        RetrailError: the run cannot go on; the message says why.
    """
    history = bench.ledger.refresh()
    live = history.releases.live
    assert live is not None, "a trainer waits for the first release"
    ranges = lineage.new_ranges(history, bench.pairs.topic, ends)
    if not ranges or history.run(run_id(live.version, ranges)) is not None:
        log.info("no pair is new since the last run", live=live.version)
        return None
    manifest = _freeze(bench, history, live.version, ranges)
    if manifest is None:
        return None
    bench.check()
    run = bench.ledger.announce(bench.producer, manifest)
    log.info(
        "run announced",
        run=run.run_id,
        version=run.version,
        parent=run.parent,
        pairs=len(manifest.pair_ids),
        replayed=len(manifest.replayed),
        left_out=manifest.left_out,
    )
    return finish(bench, run)


def finish(bench: Bench, run: Run) -> Release:
    """Steps 5 to 9 of :func:`train_new`, as far as they have not happened yet."""
    with metrics.RUN_SECONDS.time():
        history = bench.ledger.refresh()
        release = history.releases.by_version.get(run.version)
        if release is None:
            manifest = bench.ledger.manifest(run)
            release = _release(bench, history, run, manifest)
            bench.check()
            if release.model != history.releases.by_version[run.parent].model:
                bench.registry.write_beside(release.model, "md", card(release, manifest))
            releases.write_release(bench.producer, bench.settings, release)
            metrics.RUNS.labels(result=release.decision).inc()
            log.info(
                "release written",
                version=release.version,
                decision=release.decision,
                reason=release.reason,
            )
        _go_live(bench, release)
    return release


def _freeze(
    bench: Bench, history: History, parent: int, ranges: tuple[Range, ...]
) -> RunManifest | None:
    """Steps 2 and 3; ``None`` if no step could be trained."""
    settings = bench.settings
    folder = bench.registry.open(history.releases.by_version[parent].model)
    config = finetune.config_of(settings, presets.preset(settings.train_preset, folder))
    rules = rules_of(settings)
    with bench.outcomes.snapshot() as known:
        selector = Selector(
            bench.pairs,
            bench.texts,
            rules,
            history.releases.lineage(parent),
            config.seed,
            config.variant,
            _factor_of(rules, known),
        )
        chosen = selector.select(ranges, lineage.trained(history, parent))
        outcome_ranges = known.ranges
    for reason, count in chosen.left_out.items():
        metrics.LEFT_OUT.labels(reason=reason).inc(count)
    try:
        finetune.plan(chosen.examples, config)
    except NothingToLearnError as nothing:
        metrics.RUNS.labels(result="empty").inc()
        log.warning("nothing to train on", reason=str(nothing), left_out=dict(chosen.left_out))
        return None
    return RunManifest(
        run_id=run_id(parent, ranges),
        retriever=settings.retriever,
        parent=parent,
        created_at=datetime.now(UTC),
        ranges=ranges,
        pair_ids=chosen.pair_ids,
        replayed=chosen.replayed,
        left_out=dict(chosen.left_out),
        intensity=chosen.intensity,
        config=config,
        training_file=bench.registry.store_training_file(settings.retriever, chosen.examples),
        outcome_ranges=outcome_ranges,
        rules=rules,
    )


def _factor_of(rules: SelectionRules, known: KnownOutcomes) -> FactorOf:
    """The outcome policy over what is known."""
    policy, factor = rules.outcome_policy, rules.outcome_factor
    if policy == "all":
        return lambda pair: 1.0

    def factor_of(pair: LabelledPair) -> float:
        return apply(policy, known.of(pair.trajectory_id) or pair.outcome, factor)

    return factor_of


def _release(bench: Bench, history: History, run: Run, manifest: RunManifest) -> Release:
    """Steps 5 to 7; a run that cannot give a child is released as rejected, so it is not repeated.

    Raises:
        ModelError: the parent's model is gone or not the one that was released.
    """
    parent = history.releases.by_version[run.parent]
    try:
        model = _child(bench, parent, run, manifest)
        ranges = [*lineage.trained(history, run.parent), *run.ranges]
        gate = compare(
            bench.registry.load(parent.model),
            bench.registry.load(model),
            bench.pairs.held_out(ranges),
            bench.pairs.trainable(ranges, manifest.config.variant),
            bench.texts,
            settings=bench.settings,
            progress=comparing(bench.check),
        )
    except (TrainingDivergedError, TrainingFileLost) as failure:
        model = parent.model
        gate = GateDecision(
            "reject",
            0,
            None,
            None,
            None,
            f"no child came of this run, the model is its parent's: {failure}",
        )
    return Release(
        version=run.version,
        retriever=manifest.retriever,
        parent=run.parent,
        run_id=run.run_id,
        model=model,
        created_at=datetime.now(UTC),
        queries=gate.queries,
        parent_metrics=gate.parent,
        child_metrics=gate.child,
        difference=gate.difference,
        interval=gate.interval,
        margin=gate.margin,
        regression=gate.regression,
        decision=gate.decision,
        reason=gate.reason,
    )


def _child(bench: Bench, parent: Release, run: Run, manifest: RunManifest) -> Model:
    """Steps 5 and 6.

    The child lies under a hash of all that it is a function of, so what is found there is it.
    """
    function = [
        parent.model.digest,
        manifest.training_file.digest,
        manifest.config.model_dump(mode="json"),
    ]
    home = f"{manifest.retriever}/{hashlib.sha256(canonical(function)).hexdigest()[:16]}"
    registry = bench.registry
    published = registry.published(home, run.version)
    if published is None:
        report = train_child(
            registry,
            parent.model,
            manifest,
            check=bench.check,
            on_step=reporting(bench.check, bench.on_step),
        )
        published = registry.publish(home, run.version, report.encoder.save)
        registry.write_beside(published, "steps.csv", steps_csv(report.steps))
    return published


def _go_live(bench: Bench, release: Release) -> None:
    """Step 9. The check comes right before: of two trainers only the active one gets here."""
    known = bench.ledger.refresh().releases
    live = releases.shipped(known, release.version, datetime.now(UTC))
    if live is not None:
        bench.check()
        releases.write_live(bench.producer, bench.settings, live)
        metrics.LIVE_VERSION.set(live.version)
        log.info("release shipped", version=live.version, previous=live.previous)
    elif release.decision == "ship" and known.live and known.live.version != release.version:
        log.warning(
            "release does not go live, another one was made live meanwhile",
            version=release.version,
            live=known.live.version,
        )
