"""What SIGINT, SIGTERM and SIGHUP do to a process, each in a process of its own."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from retrail_runtime.signals import STOP_SIGNALS, stop_event

STOPPABLE = """
import sys
from retrail_runtime.signals import stop_event
with stop_event() as stop:
    print("ready", flush=True)
    stop.wait(60)
    print("stopped", flush=True)
    if "slow" in sys.argv:
        import time; time.sleep(60)
"""
ASYNCIO = """
import asyncio
from retrail_runtime.signals import StopSignals
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
from retrail_runtime.signals import StopSignals, interrupt
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
    """A process that has printed ``ready``."""
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
