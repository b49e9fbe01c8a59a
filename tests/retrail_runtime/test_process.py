"""Logging is set up as often as needed; stop signals, each in its own process."""

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from structlog.testing import capture_logs

from retrail_runtime.process import (
    QUIET_LOGGERS,
    STOP_SIGNALS,
    RateLimit,
    configure,
    stop_event,
)

STOPPABLE = """
import sys
from retrail_runtime.process import stop_event
with stop_event() as stop:
    print("ready", flush=True)
    stop.wait(60)
    print("stopped", flush=True)
    if "slow" in sys.argv:
        import time; time.sleep(60)
"""
ASYNCIO = """
import asyncio
from retrail_runtime.process import StopSignals
async def main():
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    with StopSignals(lambda: loop.call_soon_threadsafe(stop.set)):
        print("ready", flush=True)
        await asyncio.wait_for(stop.wait(), 60)
        print("stopped", flush=True)
asyncio.run(main())
"""
INTERRUPTED = """
import sys, time
from retrail_runtime.process import StopSignals, interrupt
signals = StopSignals(interrupt, again=lambda: print("killed", flush=True))
with signals:
    try:
        signals.stopping = "stopping" in sys.argv
        print("ready", flush=True)
        time.sleep(60 if not signals.stopping else 0.5)
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@contextmanager
def running(script: str, *arguments: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed ``ready``, and by default heeds SIGHUP under nohup, too."""
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, **options
    )  # type: ignore[call-overload]
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("script", [STOPPABLE, ASYNCIO, INTERRUPTED])
def test_the_first_signal_stops_in_order(script: str, number: signal.Signals) -> None:
    with running(script) as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    assert output.splitlines()[-1] == "stopped"
    assert process.returncode == 0


def test_a_second_signal_ends_the_process() -> None:
    with running(STOPPABLE, "slow") as process:
        process.terminate()
        while "stopped" not in process.stdout.readline():  # type: ignore[union-attr]
            pass
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_a_signal_while_stopping_is_urgent() -> None:
    with running(INTERRUPTED, "stopping") as process:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert output == "killed\n"


def test_nohup_is_respected() -> None:
    ignore_hangup = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    with running(STOPPABLE, preexec_fn=ignore_hangup) as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(30) == 0


def test_a_background_job_can_be_interrupted() -> None:
    ignore_interrupt = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    with running(STOPPABLE, preexec_fn=ignore_interrupt) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_handlers_are_restored_and_other_threads_set_none() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_event():
        assert [signal.getsignal(number) for number in STOP_SIGNALS] != before
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before

    seen: list[bool] = []

    def elsewhere() -> None:
        with stop_event() as stop:
            seen.append([signal.getsignal(n) for n in STOP_SIGNALS] == before and not stop.is_set())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [True]


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json=True)

    structlog.get_logger("retrail.test").warning("pool is small", pool=3)

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["pool"], line["level"]) == ("pool is small", 3, "warning")
    assert line["logger"] == "retrail.test"


def test_libraries_log_only_from_warnings_on() -> None:
    configure("DEBUG")

    assert {logging.getLogger(name).level for name in QUIET_LOGGERS} == {logging.WARNING}


def test_a_logger_that_has_logged_follows_a_new_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("retrail.test")
    configure(json=True)
    log.warning("first")

    configure("ERROR", json=True)
    log.warning("second")
    with capture_logs() as logged:
        log.error("third")

    assert "second" not in capsys.readouterr().err
    assert [entry["event"] for entry in logged] == ["third"]


def test_one_line_of_a_kind_at_a_time() -> None:
    now = 1000.3
    limit = RateLimit(10.0, now=lambda: now)
    assert [limit.allows("a"), limit.allows("a"), limit.allows("b")] == [True, False, True]
    now += 9.9
    assert not limit.allows("a")
    now += 0.2
    assert [limit.allows("a"), limit.allows("b"), limit.allows("a")] == [True, True, False]
