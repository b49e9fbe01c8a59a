"""The process of a worker: start, stop, and exit if it does not stop by itself."""

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import structlog
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from retrail_runtime import files
from retrail_runtime.health import State, serve_metrics
from retrail_runtime.kafka import require_broker, require_rights
from retrail_runtime.kafka.refusals import MISSING_RIGHT
from retrail_runtime.metrics import at_zero
from retrail_runtime.process import StopSignals
from schemas.errors import ConfigurationError, RestartRequiredError, RetrailError
from schemas.settings import Settings
from streams import metrics
from streams.loop import health
from streams.loop.faust_app import BatchApp
from streams.loop.partition import Discontinuity, MakeTask
from streams.loop.worker import ANSWER_SECONDS, Worker

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Between two checks of the watchdog."""

LEAVE_SECONDS = 5.0
"""After the last checkpoint, for Faust to leave the group."""

GC_THRESHOLDS = (10_000, 20, 10)
"""Allocations before a collection of the youngest generation, and collections of each generation
before one of the next."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A topic that a process reads, and what it makes of it.

    Attributes:
        source: topic to read.
        written: topics to write.
        make_task: makes the task of a partition.
        group: name of the consumer group, without prefix and revision.
        rekeys: records are not written to the partition of their source, so the topics may have
            different numbers of partitions.
        revised: a new revision reads the topic again.
    """

    source: str
    written: Sequence[str]
    make_task: MakeTask
    group: str
    rekeys: bool = False
    revised: bool = True


def run(
    settings: Settings,
    role: Literal["judge", "mine", "otlp"],
    stages: Sequence[Stage],
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Args:
        settings: of the installation.
        role: names the data directory and the metrics file.
        stages: what it reads; each is a member of a consumer group.
        at_end: awaited after the last checkpoint.

    Raises:
        BrokerUnavailableError: Kafka does not answer at start.
        TopicMismatchError: a topic is missing, the numbers of partitions differ, or that of the
            source grew.
        RestartRequiredError: a send failed for good, or Kafka or Faust failed.
        ConfigurationError: a setting is unusable, or Kafka refuses the connection or a right.
    """
    counts: dict[str, int] = {}
    for stage in stages:
        topics = [stage.source, *stage.written]
        counts |= require_broker(settings, topics, keyed_alike=not stage.rekeys)
    require_rights(settings, role)
    claimed = files.claim(settings, role)
    tune_gc()
    kinds = (*get_args(Discontinuity), "skipped", "recreated")
    at_zero(metrics.DISCONTINUITIES, [stage.source for stage in stages], kinds)
    guard = ExitGuard()

    async def main() -> RetrailError | None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        workers = [Worker(each.source, each.make_task, counts[each.source]) for each in stages]
        serve_metrics(settings, role, lambda: State.of({one.health(): True for one in workers}))
        guard.exit_if_blocked(lambda: min(worker.observed_at for worker in workers))
        for worker, stage in zip(workers, stages, strict=True):
            group = settings.group(stage.group, revised=stage.revised)
            folder = str(claimed.path / f"faust-{stage.group}")
            worker.app = BatchApp(settings, group, folder, stage.source, worker)

        def stop_soon() -> None:
            loop.call_soon_threadsafe(stop.set)

        # A second signal changes nothing: the guard limits the time of the shutdown.
        with StopSignals(stop_soon, again=stop_soon):
            failure = _as_retrail_error(await _live(workers, stop), role)
            # The last checkpoint is done, or failed.
            guard.exit_if_hanging(failure.exit_status if failure else 0)
            if at_end is not None:
                await at_end()
            for worker in workers:
                await worker.app.stop()
        return failure

    try:
        failure = asyncio.run(main())
    finally:
        guard.close()
    if failure is not None:
        raise failure
    log.info("worker stopped", role=role)


def tune_gc() -> None:
    """Exclude the objects made at start from garbage collection, and collect less often.

    Records and outputs are many and short-lived; with the default thresholds they cause collections
    of all of Faust and pydantic, during which no record is processed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _live(workers: Sequence[Worker], stop: asyncio.Event) -> BaseException | None:
    """Work until ``stop`` is set or something fails; returns what failed."""
    work = [
        asyncio.create_task(_reporting(part, worker))
        for worker in workers
        for part in (
            worker.keep_checkpointing(),
            worker.keep_watching(),
            worker.keep_identifying(),
            _crash_of(worker.app, worker),
        )
    ]
    _starting = [
        asyncio.create_task(_reporting(_started(worker.app, worker.source), worker))
        for worker in workers
    ]
    ending = asyncio.create_task(stop.wait())
    failures = [worker.failure for worker in workers]
    ends: list[asyncio.Future[Any]] = [ending, *failures]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    failed = [failure.result() for failure in failures if failure.done()]
    for worker in workers:
        worker.app.consumer.stop_flow()
    for task in [*work, ending]:
        task.cancel()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.gather(*(worker.revoked() for worker in workers))
    except (TimeoutError, KafkaError, RestartRequiredError) as error:
        log.warning("the last checkpoint failed", error=repr(error))
    return failed[0] if failed and not stop.is_set() else None


async def _reporting(work: Coroutine[Any, Any, None], worker: Worker) -> None:
    try:
        await work
    except Exception as failure:
        worker.fail(failure)


async def _started(app: BatchApp, topic: str) -> None:
    await app.start()
    log.info("worker ready", topic=topic)


async def _crash_of(app: BatchApp, worker: Worker) -> None:
    """Fail the worker when Faust has crashed; there is no event to await."""
    while not app.crashed:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    worker.fail(app.crash_reason or RuntimeError("Faust stopped without a reason"))


_UNAUTHORIZED = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)


def _as_retrail_error(failure: BaseException | None, role: str) -> RetrailError | None:
    if failure is None or isinstance(failure, RetrailError):
        return failure
    if isinstance(failure, _UNAUTHORIZED):
        return ConfigurationError(f"Kafka refuses: {failure!r}. {MISSING_RIGHT}")
    error = RestartRequiredError(f"The {role} worker failed: {failure!r}")
    error.__cause__ = failure
    return error


class ExitGuard:
    """Exits a process whose event loop is blocked, or whose libraries hang at their end.

    It runs in threads of its own, until :meth:`close`.
    """

    def __init__(self, leave: Callable[[int], None] = os._exit) -> None:
        """``leave`` ends the process with a status, at once."""
        self._leave = leave
        self._closed = threading.Event()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def exit_if_blocked(self, observed_at: Callable[[], float]) -> threading.Thread:
        """Exit with 75 if ``observed_at()`` is the same for :data:`health.STALL_SECONDS`.

        It counts its own checks, so that a process is not ended for the time that it was suspended.
        """

        def watch() -> None:
            turns, last = 0, observed_at()
            while turns * LOOK_SECONDS <= health.STALL_SECONDS:
                if self._closed.wait(LOOK_SECONDS):
                    return
                now = observed_at()
                turns, last = (turns + 1 if now == last else 0), now
            log.error("the event loop is blocked; exiting", seconds=round(turns * LOOK_SECONDS))
            self._leave(RestartRequiredError.exit_status)

        return _thread(watch)

    def exit_if_hanging(self, status: int, seconds: float = LEAVE_SECONDS) -> threading.Thread:
        """Exit with ``status`` unless :meth:`close` is called within ``seconds``."""

        def wait() -> None:
            if not self._closed.wait(seconds):
                log.warning("Kafka's client hangs at its end; exiting", status=status)
                self._leave(status)

        return _thread(wait)


def _thread(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=target.__qualname__, daemon=True)
    thread.start()
    return thread
