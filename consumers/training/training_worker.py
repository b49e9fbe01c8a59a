"""The trainer: labelled pairs in, releases out (``retrail worker train``, ``retrail train``).

One trainer is active, others stand by (:mod:`consumers.training.ownership`). It goes on following
the topics while a run trains in a thread of its own (:mod:`consumers.training.training_run`).
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import structlog

from consumers import metrics, releases
from consumers.training.child import OnStep
from consumers.training.outcome_store import OutcomeStore
from consumers.training.ownership import Ownership, Role, someone_trains
from consumers.training.task import Task
from consumers.training.text_store import TextStore
from consumers.training.training_ledger import Ledger
from consumers.training.training_pairs import PairStore
from consumers.training.training_run import Bench, Interrupted, finish, train_new
from retrail_runtime import data_dir, kafka
from retrail_runtime.kafka import require_broker
from retrail_runtime.metrics import serve_metrics
from retrail_runtime.signals import stop_event
from schemas.errors import (
    BrokerUnavailableError,
    DeliveryError,
    InputError,
    RestartRequiredError,
    RetrailError,
)
from schemas.releases import Release
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import lineage
from trainer.data.lineage import Run
from trainer.evaluate import regression_set
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

LAG_SECONDS = 5.0
"""Between two looks at the ends of the topics, for the lag metrics."""

WATCH_SECONDS = 0.5
"""Between two counts of the pending pairs."""

WAIT_SECONDS = 1.0
"""Between two looks for a first release, or two tries while Kafka does not answer."""

Phase = Literal["standing by", "deciding", "waiting", "watching", "catching up", "working"]


def run(settings: Settings) -> None:
    """Be a trainer until SIGTERM or SIGINT.

    Raises:
        BrokerUnavailableError, TopicMismatchError: at the start.
        InputError: the regression set of the gate cannot be read.
        ModelError: the parent's model cannot be loaded, or the registry cannot be used.
        RestartRequiredError: a restart is the remedy.
    """
    _require(settings)
    serve_metrics(settings, "train")
    with stop_event() as stop, closing(Trainer(settings, "worker")) as trainer:
        while not stop.is_set():
            trainer.turn()
    log.info("trainer stopped")


def train_now(settings: Settings, *, on_step: OnStep | None = None) -> Release | None:
    """One run with what is on the topics now: ``retrail train``.

    Waits for a run that another trainer has in hand, then takes its place for this one run. A run
    that was left unfinished is finished first.

    Args:
        on_step: told about every optimiser step, from another thread.

    Returns:
        The release; ``None`` if no pair was new, or none could train (the log says why).

    Raises:
        InputError: there is no first release yet, or the gate's regression set cannot be read.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
        ModelError: the parent's model cannot be loaded, or the registry cannot be used.
        RestartRequiredError: trying again is the remedy.
    """
    _require(settings)
    if releases.read(settings).live is None:
        raise InputError(
            "There is no release to train from yet. The index worker registers the first one: "
            "start it with `retrail worker index`, or all workers with `retrail up`."
        )
    _wait_for_others(settings)
    with closing(Trainer(settings, "now", on_step)) as trainer:
        while not trainer.finished:
            trainer.turn()
        return trainer.release


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do once the local copies have reached the ends of their topics.

    Attributes:
        unfinished: the run to finish; ``None`` for a new run.
        why: for the log.
    """

    unfinished: Run | None
    why: str
    pair_ends: Mapping[int, int]
    text_ends: Mapping[int, int]
    outcome_ends: Mapping[int, int]


class Trainer:
    """One member of the trainers' group; :meth:`turn` is to be called for ever.

    ========== ============================================== =================================
    phase      meaning                                        next
    ========== ============================================== =================================
    standing by  another trainer is active                    deciding, when the partition comes
    deciding   the history is read                            waiting, catching up or watching
    waiting    there is no first release yet                  deciding, once there is one
    watching   pairs accumulate                               catching up, by count or age
    catching up  local copies follow to the ends of the topics  working
    working    a run is made or finished in its thread        deciding, when it has ended
    ========== ============================================== =================================

    From every phase a lost partition leads back to standing by.

    Attributes:
        finished: whether the one run of ``retrail train`` is over.
        release: what came of it.
    """

    def __init__(self, settings: Settings, role: Role, on_step: OnStep | None = None) -> None:
        self.finished = False
        self.release: Release | None = None
        self._closed = False
        self._settings = settings
        self._role: Role = role
        self._on_step = on_step
        self._claim = data_dir.claim(settings, "train")
        self._pairs = PairStore(settings, self._claim.path)
        self._texts = TextStore(settings, self._claim.path)
        self._outcomes = OutcomeStore(settings, self._claim.path)
        self._ledger = Ledger(settings)
        self._producer = kafka.producer(settings)
        self._ownership = Ownership(settings, role)
        self._task: Task[Release | None] | None = None
        self._job: Job | None = None
        self._phase: Phase = "standing by"
        self._phases: dict[Phase, Callable[[], Phase]] = {
            "standing by": self._stand_by,
            "deciding": self._decide,
            "waiting": self._wait,
            "watching": self._watch,
            "catching up": self._catch_up,
            "working": self._work,
        }
        self._fruitless: dict[int, int] = {}
        self._looked_at_lag = 0.0
        self._not_before = 0.0

    def turn(self) -> None:
        """Keep the membership, take in what has arrived, and do what the phase asks for.

        Raises:
            ModelError, RestartRequiredError: see :func:`run`.
        """
        owned = self._ownership.poll(0.05)
        self._pairs.poll(0.1)
        self._texts.poll(0)
        self._outcomes.poll(0)
        try:
            self._show_lag()
            if not owned and self._phase != "standing by":
                self._yield()
            elif time.monotonic() >= self._not_before:
                self._enter(self._phases[self._phase]())
        except (BrokerUnavailableError, DeliveryError) as error:
            if self._role == "now":
                raise
            log.warning("waiting for Kafka", error=str(error))
            self._not_before = time.monotonic() + WAIT_SECONDS

    def close(self) -> None:
        """Stop a run that is being made, leave the group and keep the local copies; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.stop_and_wait()
        self._ownership.close()
        self._pairs.close()
        self._texts.close()
        self._outcomes.close()
        self._claim.lock.release()

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase:
            log.debug("phase", now=phase, before=self._phase)
            self._phase = phase

    def _yield(self) -> None:
        """The partition is gone: the run in hand belongs to the next active trainer."""
        if self._task is not None:
            self._task.stop()
            if self._task.is_alive():
                return
            metrics.RUNS.labels(result="interrupted").inc()
            self._task = None
        self._enter("standing by")

    def _stand_by(self) -> Phase:
        return "deciding" if self._ownership.owned else "standing by"

    def _decide(self) -> Phase:
        history = self._ledger.refresh()
        if history.releases.live is None:
            log.info("waiting for the first release, which the index worker registers")
            return "waiting"
        last = history.last()
        if last is not None and lineage.lacking(history, last):
            return self._prepare(last, "the last run is unfinished")
        if self._role == "now":
            return self._prepare(None, "asked for")
        return "watching"

    def _wait(self) -> Phase:
        self._not_before = time.monotonic() + WAIT_SECONDS
        return "waiting" if self._ledger.refresh().releases.live is None else "deciding"

    def _watch(self) -> Phase:
        seen = lineage.seen_ends(self._ledger.history, self._pairs.topic)
        for partition, end in self._fruitless.items():
            seen[partition] = max(end, seen.get(partition, 0))
        pending = self._pairs.pending(seen)
        now = time.time_ns() // 1_000_000
        metrics.PAIRS_PENDING.set(pending.count)
        metrics.PENDING_AGE.set((now - (pending.oldest or now)) / 1000)
        trigger = lineage.due(
            pending.count,
            pending.oldest,
            now,
            min_pairs=self._settings.train_min_pairs,
            max_age_seconds=self._settings.train_max_age_seconds,
        )
        if trigger is None:
            self._not_before = time.monotonic() + WATCH_SECONDS
            return "watching"
        return self._prepare(None, trigger)

    def _prepare(self, unfinished: Run | None, why: str) -> Phase:
        self._job = Job(
            unfinished, why, self._pairs.ends(), self._texts.ends(), self._outcomes.ends()
        )
        return "catching up"

    def _catch_up(self) -> Phase:
        job = self._job
        assert job is not None
        if not (
            self._pairs.reached(job.pair_ends)
            and self._texts.reached(job.text_ends)
            and self._outcomes.reached(job.outcome_ends)
        ):
            return "catching up"
        log.info("run begins", why=job.why)

        def work(check: Callable[[], None]) -> Release | None:
            bench = Bench(
                self._settings,
                self._producer,
                self._pairs,
                self._texts,
                self._outcomes,
                self._ledger,
                check,
                self._on_step,
            )
            if job.unfinished is not None:
                return finish(bench, job.unfinished)
            return train_new(bench, job.pair_ends)

        self._task = Task(work)
        self._task.start()
        return "working"

    def _work(self) -> Phase:
        task, job = self._task, self._job
        assert task is not None
        assert job is not None
        if task.is_alive():
            return "working"
        self._task = None
        self._enter("deciding")
        if isinstance(task.error, Interrupted):
            # The partition was lost and came back before the work noticed: the run is still ours.
            metrics.RUNS.labels(result="interrupted").inc()
            return "deciding"
        if task.error is not None:
            metrics.RUNS.labels(result="failed").inc()
            raise _shown(task.error)
        self.release = task.result or self.release
        if job.unfinished is None:
            self.finished = True
            if task.result is None:
                self._fruitless = dict(job.pair_ends)
        return "deciding"

    def _show_lag(self) -> None:
        if time.monotonic() - self._looked_at_lag >= LAG_SECONDS:
            self._looked_at_lag = time.monotonic()
            self._pairs.ends()
            self._texts.ends()
            self._outcomes.ends()


def _shown(error: Exception) -> RetrailError:
    """What the caller of a failed run is told."""
    if isinstance(error, RetrailError):
        return error
    log.error("a run failed", exc_info=error)
    return RestartRequiredError(
        f"A training run failed unexpectedly: {type(error).__name__}: {error}"
    )


def _require(settings: Settings) -> None:
    topics = Topics.of(settings)
    require_broker(
        settings,
        [
            topics.labelled_pairs,
            topics.documents,
            topics.outcomes,
            topics.training_runs,
            topics.retriever_releases,
        ],
    )
    Registry.of(settings).require(writing=True)
    if settings.gate_regression is not None:
        regression_set.load(settings.gate_regression)


def _wait_for_others(settings: Settings) -> None:
    """Wait while another trainer has a run in hand, so that its work is not thrown away."""
    ledger, said = Ledger(settings), False
    while True:
        history = ledger.refresh()
        last = history.last()
        if last is None or not lineage.lacking(history, last) or not someone_trains(settings):
            return
        if not said:
            log.info("another trainer has a run in hand, waiting for its release", run=last.run_id)
            said = True
        time.sleep(WAIT_SECONDS)
