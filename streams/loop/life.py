"""How a worker's process lives and ends."""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from retrail_runtime import data_dir
from retrail_runtime.metrics import serve_metrics
from schemas.errors import RestartRequiredError, RetrailError
from schemas.settings import Settings
from streams.loop import health
from streams.loop.faust_batches import BatchApp
from streams.loop.worker import ANSWER_SECONDS, MakeTask, Worker

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
"""Between two looks of the watchdog."""

LEAVE_SECONDS = 5.0
"""After the last checkpoint, for Faust to leave the group."""

COLLECT_AFTER = (10_000, 20, 10)
"""Objects made before a collection of the young, and how many of those before one of the older."""


def run(
    settings: Settings,
    role: str,
    source: str,
    make_task: MakeTask,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Args:
        settings: of the installation.
        role: names the consumer group, the data directory and the metrics file.
        source: topic to read.
        make_task: makes the worker's own part for a partition.
        at_end: awaited after the last checkpoint.

    Raises:
        RestartRequiredError: a send failed for good, or Kafka or Faust left the worker without a
        way on.
        ConfigurationError: a setting is unusable.
    """
    claimed = data_dir.claim(settings, role)
    spare_the_collector()

    async def main() -> BaseException | None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        worker = Worker(source, settings.kafka_session_timeout, make_task)
        serve_metrics(settings, role, worker.health)
        _leave_if_frozen(lambda: worker.observed_at)
        group = settings.group(role, revised=True)
        app = BatchApp(settings, group, str(claimed.path / "faust"), source, worker)
        failure = await _live(app, worker, stop)
        # All that matters is committed by now, or cannot be.
        _leave_in_time(_exit_status(failure))
        if at_end is not None:
            await at_end()
        await app.stop()
        return failure

    failure = asyncio.run(main())
    if failure is None:
        log.info("worker stopped", role=role)
    elif isinstance(failure, RetrailError):
        raise failure
    else:
        raise RestartRequiredError(f"The {role} worker cannot go on: {failure!r}") from failure


def spare_the_collector() -> None:
    """Keep what start-up made out of garbage collections, and make these rarer.

    Records and outputs are many and short-lived; by the defaults they set off collections that walk
    through all of Faust and pydantic, while no record moves.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _live(app: BatchApp, worker: Worker, stop: asyncio.Event) -> BaseException | None:
    """Work until ``stop`` is set or nothing more can be done; returns why it cannot."""
    worker.app = app
    starting = asyncio.create_task(app.start())
    ending = asyncio.create_task(stop.wait())
    work = [
        asyncio.create_task(forever)
        for forever in (worker.keep_checkpointing(), worker.keep_watching(), _crash_of(app))
    ]
    await _first([starting, ending, worker.failure, *work])
    if starting.done() and starting.exception() is None:
        log.info("worker ready", topic=worker.source)
        await _first([ending, worker.failure, *work])
    failure = None if ending.done() else _failure([worker.failure, *work, starting])
    if failure is not None:
        worker.fail(failure)
    app.consumer.stop_flow()
    for task in [*work, ending]:
        task.cancel()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await worker.revoked()
    except (TimeoutError, KafkaError, RestartRequiredError) as error:
        log.warning("the last checkpoint did not succeed", error=repr(error))
    return failure


async def _first(futures: Iterable[asyncio.Future[Any]]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _failure(futures: Iterable[asyncio.Future[Any]]) -> BaseException:
    done = next(future for future in futures if future.done())
    failure = done.exception() or done.result()
    return failure if isinstance(failure, BaseException) else RuntimeError(f"{done!r} ended")


async def _crash_of(app: BatchApp) -> BaseException:
    """Returns when Faust has given up; it has no event to wait for."""
    while not app.crashed:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    return app.crash_reason or RuntimeError("Faust stopped without a reason")


def _exit_status(failure: BaseException | None) -> int:
    if failure is None:
        return 0
    return (
        failure.exit_status
        if isinstance(failure, RetrailError)
        else RestartRequiredError.exit_status
    )


def _leave_if_frozen(observed_at: Callable[[], float]) -> None:
    """A worker that does not even look at itself cannot leave by itself; a thread sees to it.

    It counts its own turns, so that a process that was stopped and woken up is given time.
    """

    def watch() -> None:
        turns, last = 0, observed_at()
        while turns * WATCH_SECONDS <= health.STALL_SECONDS:
            time.sleep(WATCH_SECONDS)
            now = observed_at()
            turns, last = (turns + 1 if now == last else 0), now
        seconds = round(turns * WATCH_SECONDS)
        log.error("the worker has not looked at its partitions; leaving", seconds=seconds)
        os._exit(RestartRequiredError.exit_status)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def _leave_in_time(status: int) -> None:
    """A library that hangs at its end must not keep the process."""

    def leave() -> None:
        log.warning("Kafka's client hangs at its end; leaving it", status=status)
        os._exit(status)

    timer = threading.Timer(LEAVE_SECONDS, leave)
    timer.daemon = True
    timer.start()
