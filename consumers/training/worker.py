"""The trainer: labelled pairs in, releases out (``retrail worker train``, ``retrail train``).

One trainer is active, others stand by (:mod:`retrail_runtime.kafka.lease`). A run trains in a
thread of its own (:mod:`consumers.training.run`), while the trainer keeps updating its mirrors.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import structlog

from consumers import releases, retention
from consumers.first_release import register_first
from consumers.tasks import RunThread, StoppedError
from consumers.training import metrics
from consumers.training.history import RunHistory
from consumers.training.metrics import OnStep, Phase, state_of
from consumers.training.mirrors import Ends, Mirrors
from consumers.training.run import RunContext, finish, train_new
from retrail_runtime import files, kafka
from retrail_runtime.health import State, serve_metrics
from retrail_runtime.kafka import require_broker
from retrail_runtime.kafka.lease import Lease, has_members
from retrail_runtime.process import RateLimit, stop_event
from schemas.errors import (
    BrokerUnavailableError,
    DeliveryError,
    InputError,
    RestartRequiredError,
    RetrailError,
)
from schemas.releases import Release
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import candidates, lineage
from trainer.data.lineage import History
from trainer.evaluate import regression_set
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

LAG_SECONDS = 5.0
"""Interval between updates of the lag metrics."""

WATCH_SECONDS = 0.5
"""Interval between counts of the pending pairs."""

WAIT_SECONDS = 1.0
"""Interval between checks for a first release, and between retries while Kafka is unavailable."""

REFRESH_SECONDS = 60.0
"""Interval between reads of the history while pairs accumulate: ``live`` may change."""

CANDIDATE_SECONDS = 2.0
"""The same while a candidate is under way."""

STOP_SECONDS = 20.0
"""Timeout for stopping a run; after it the process exits as in a crash."""

Role = Literal["now", "worker"]

_RANK: dict[Role, int] = {"now": 0, "worker": 1}
"""``retrail train`` takes the lease from a worker for its one run."""


def run(settings: Settings) -> None:
    """Run a trainer until SIGTERM or SIGINT.

    Raises:
        BrokerUnavailableError, TopicMismatchError: at the start.
        InputError: the regression set of the gate cannot be read.
        ModelError: the parent's model cannot be loaded, or the registry cannot be used.
        RestartRequiredError: the process must be restarted.
    """
    _require(settings)
    with stop_event() as stop, closing(Trainer(settings, "worker")) as trainer:
        serve_metrics(settings, "train", trainer.health)
        while not stop.is_set():
            trainer.turn()
    log.info("trainer stopped")


def train_now(settings: Settings, *, on_step: OnStep | None = None) -> Release | str:
    """Run once, on the current records of the topics: ``retrail train``.

    If another trainer is running, wait for its release, and for the decision on a candidate; then
    take the lease for one run. An unfinished run is completed first.

    Args:
        on_step: called after every optimiser step, from another thread.

    Returns:
        The release; or the reason why there is none, with a remedy.

    Raises:
        InputError: there is no first release yet, or the gate's regression set cannot be read.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
        ModelError: the parent's model cannot be loaded, or the registry cannot be used.
        RestartRequiredError: the command must be repeated.
    """
    _require(settings)
    known = releases.read(settings)
    if unused := releases.unused_model(settings, known):
        log.warning(unused)
    if settings.gate != "trainer" and known.live is None:
        raise InputError(
            "There is no release to train from yet. The index worker registers the first release: "
            "start it with `retrail worker index`, or all workers with `retrail up`."
        )
    _wait_for_others(settings)
    with closing(Trainer(settings, "now", on_step)) as trainer:
        while trainer.result is None:
            trainer.turn()
        return trainer.result


@dataclass(frozen=True, slots=True)
class PendingRun:
    """A run that starts when the mirrors have reached ``ends``.

    Attributes:
        unfinished: the run to complete; ``None`` for a new one.
        why: reason for the log.
    """

    unfinished: RunManifest | None
    why: str
    ends: Ends


class Trainer:
    """A trainer, active or standing by; call :meth:`turn` in a loop.

    =========== ================================================== ================================
    phase       meaning                                            next
    =========== ================================================== ================================
    standing by another trainer is active                          deciding, with the lease
    deciding    the history is read                                waiting, catching up or watching
    waiting     there is no first release yet                      deciding, once there is one
    watching    pairs accumulate                                   catching up, by count or age
    catching up mirrors read up to the ends of the topics          working
    working     the run's thread trains or completes a run         deciding, when it has ended
    =========== ================================================== ================================

    Losing the lease leads from every phase to standing by.

    Attributes:
        phase: see above.
        result: of the run of ``retrail train``, when it has ended: the release, or the reason why
            there is none.
    """

    def __init__(self, settings: Settings, role: Role, on_step: OnStep | None = None) -> None:
        self.result: Release | str | None = None
        self._finished: Release | None = None
        self.phase: Phase = "standing by"
        self._closed = False
        self._settings = settings
        self._role: Role = role
        self._on_step = on_step
        self._claim = files.claim(settings, "train")
        self._mirrors = Mirrors(settings, self._claim.path)
        self._history = RunHistory(settings)
        self._producer = kafka.producer(settings)
        topic, group = Topics.of(settings).training_runs, settings.group("train")
        self._lease = Lease(settings, topic, group, rank=_RANK[role])
        self._thread: RunThread | None = None
        self._pending: PendingRun | None = None
        self._phases: dict[Phase, Callable[[], Phase]] = {
            "standing by": lambda: "deciding",
            "deciding": self._decide,
            "waiting": self._wait,
            "watching": self._watch,
            "catching up": self._catch_up,
            "working": self._work,
        }
        self._fruitless: dict[int, int] = {}
        self._ends: Mapping[int, int] = {}
        self._lags, self._sweeps = RateLimit(LAG_SECONDS), RateLimit(retention.SWEEP_SECONDS)
        self._refreshed_at = self._not_before = 0.0
        self._turned_at = time.monotonic()

    def turn(self) -> None:
        """Keep the lease, store new records, and do the work of the phase.

        Raises:
            ModelError, RestartRequiredError: see :func:`run`.
        """
        held = self._lease.poll(0.05)
        metrics.ACTIVE.set(held)
        self._mirrors.poll(0.1)
        try:
            if self._lags.allows():
                self._mirrors.ends()
            if not held:
                self._stand_by()
            elif time.monotonic() >= self._not_before:
                self._enter(self._phases[self.phase]())
        except (BrokerUnavailableError, DeliveryError) as error:
            if self._role == "now":
                raise
            log.warning("waiting for Kafka", error=str(error))
            self._not_before = time.monotonic() + WAIT_SECONDS
        self._turned_at = time.monotonic()

    def health(self) -> State:
        """Its state; may be called from any thread."""
        thread, moved_at = self._thread, self._turned_at
        if thread is not None and thread.is_alive():
            moved_at = min(moved_at, thread.moved_at)
        unmoved = time.monotonic() - moved_at
        return state_of(self.phase, joined=self._lease.joined, unmoved=unmoved)

    def close(self) -> None:
        """Stop the current run, release the lease and close the mirrors; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._thread.stop()
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                log.warning("run did not stop in time; the next active trainer completes it")
        self._lease.close()
        metrics.ACTIVE.set(0)
        self._mirrors.close()
        self._claim.lock.release()

    def _enter(self, phase: Phase) -> None:
        if phase != self.phase:
            log.debug("phase", now=phase, before=self.phase)
            self.phase = phase

    def _stand_by(self) -> None:
        """Without the lease, stop the current run; the next active trainer completes it."""
        if self._thread is not None:
            self._thread.stop()
            if self._thread.is_alive():
                return
            metrics.RUNS.labels(result="interrupted").inc()
            self._thread = None
        self._enter("standing by")

    def _refresh(self) -> History:
        """The history as of now; files that are too old are removed."""
        history = self._history.refresh()
        self._refreshed_at = time.monotonic()
        live = history.releases.live
        learned = lineage.trained(history, live.version) if live else []
        metrics.NEWEST_PAIR.set(self._mirrors.pairs.newest(learned) / 1000)
        if self._sweeps.allows():
            retention.sweep(self._settings, history)
        return history

    def _decide(self) -> Phase:
        history = self._refresh()
        self._ends = self._mirrors.ends().pairs
        if history.releases.live is None:
            if self._settings.gate != "trainer" or not history.releases.lacks_first():
                log.info("waiting for the first release, which the index worker registers")
                return "waiting"
            register_first(self._settings)
            return "deciding"
        last = history.last()
        if last is not None and lineage.unfinished(history, last):
            return self._prepare(last, "the last run is unfinished")
        if self._role == "now":
            return self._prepare(None, "asked for")
        return "watching"

    def _wait(self) -> Phase:
        self._not_before = time.monotonic() + WAIT_SECONDS
        return "waiting" if self._history.refresh().releases.live is None else "deciding"

    def _watch(self) -> Phase:
        under_way = candidates.under_way(self._history.history.releases)
        seconds = REFRESH_SECONDS if under_way is None else CANDIDATE_SECONDS
        if time.monotonic() - self._refreshed_at >= seconds:
            under_way = candidates.under_way(self._refresh().releases)
        seen = lineage.seen_ends(self._history.history, self._mirrors.pairs.topic, self._ends)
        for partition, end in self._fruitless.items():
            seen[partition] = max(end, seen.get(partition, 0))
        pending = self._mirrors.pairs.pending(seen)
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
        if trigger is None or under_way is not None:
            self._not_before = time.monotonic() + WATCH_SECONDS
            return "watching"
        return self._prepare(None, trigger)

    def _prepare(self, unfinished: RunManifest | None, why: str) -> Phase:
        self._pending = PendingRun(unfinished, why, self._mirrors.ends())
        return "catching up"

    def _catch_up(self) -> Phase:
        pending = self._pending
        assert pending is not None
        if not self._mirrors.reached(pending.ends):
            return "catching up"
        log.info("run begins", why=pending.why)

        def work(check: Callable[[], None]) -> Release | str:
            context = RunContext(
                self._settings,
                self._producer,
                self._mirrors,
                self._history,
                check,
                self._on_step,
                asked=self._role == "now",
            )
            if pending.unfinished is not None:
                return finish(context, pending.unfinished)
            return train_new(context, pending.ends.pairs)

        self._thread = RunThread(work)
        self._thread.start()
        return "working"

    def _work(self) -> Phase:
        thread, pending = self._thread, self._pending
        assert thread is not None
        assert pending is not None
        if thread.is_alive():
            return "working"
        self._thread = None
        self._enter("deciding")
        if isinstance(thread.error, StoppedError):
            # The lease was lost and regained before the run stopped, or pairs were erased.
            metrics.RUNS.labels(result="interrupted").inc()
            return "deciding"
        if thread.error is not None:
            metrics.RUNS.labels(result="failed").inc()
            raise _as_retrail_error(thread.error)
        if isinstance(thread.result, Release):
            self._finished = thread.result
        elif thread.result is not None:
            log.warning("no run", reason=thread.result)
            self._fruitless = dict(pending.ends.pairs)
        if pending.unfinished is None:
            self.result = self._finished or thread.result
        return "deciding"


def _as_retrail_error(error: Exception) -> RetrailError:
    if isinstance(error, RetrailError):
        return error
    log.error("run failed", exc_info=error)
    return RestartRequiredError(
        f"A training run failed unexpectedly: {type(error).__name__}: {error}"
    )


def _require(settings: Settings) -> None:
    topics = Topics.of(settings)
    require_broker(
        settings,
        [
            *(topics.labelled_pairs, topics.documents, topics.outcomes),
            *(topics.training_runs, topics.retriever_releases, topics.erasures),
        ],
    )
    kafka.require_rights(settings, "train")
    Registry.of(settings).require(writing=True)
    if settings.gate_regression is not None:
        regression_set.load(settings.gate_regression)


def _wait_for_others(settings: Settings) -> None:
    """Wait while a trainer completes a run, and while an index worker decides on a candidate."""
    runs, logged = RunHistory(settings), ""
    while True:
        history = runs.refresh()
        last = history.last()
        if last is not None and lineage.unfinished(history, last):
            role, why = "train", "waiting for another trainer to complete its run"
        elif candidates.under_way(history.releases) is not None:
            role, why = "index", "waiting for the index worker to decide on the candidate"
        else:
            return
        if not has_members(settings, settings.group(role)):
            return
        if why != logged:
            logged = why
            log.info(why)
        time.sleep(WAIT_SECONDS)
