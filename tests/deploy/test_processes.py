"""Child processes: logs, stopping, dying with their parent, and the ports of servers."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from deploy import processes
from deploy.errors import StackError
from deploy.processes import Child
from tests.waiting import eventually


def test_output_goes_to_the_log_and_restarts_append(tmp_path: Path) -> None:
    child = Child(
        "echo", ["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path / "logs" / "e.log"
    )
    for _ in range(2):
        child.start()
        assert child.wait(10)
    assert child.exit_status == 3
    assert child.log_tail() == "out\nerr\nout\nerr"
    assert child.log_tail(1) == "err"


def test_a_large_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_LIMIT", 10)
    log = tmp_path / "e.log"
    log.write_text("x" * 11)
    child = Child("echo", ["echo", "new"], log)
    child.start()
    assert child.wait(10)
    assert log.read_text() == "new\n"
    assert (tmp_path / "e.log.1").read_text() == "x" * 11


def test_tail_of_no_file(tmp_path: Path) -> None:
    assert Child("none", [], tmp_path / "none").log_tail() == ""


def test_program_that_does_not_exist(tmp_path: Path) -> None:
    child = Child("none", ["no-such-program"], tmp_path / "log")
    child.start()
    assert child.wait(10)
    assert child.exit_status == 1
    assert "cannot run no-such-program" in child.log_tail()


def test_stops_by_its_own_signal(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: sys.exit(7)"
    )
    child = Child("c", [sys.executable, "-c", script], tmp_path / "log", stop_signal=signal.SIGINT)
    child.start()
    eventually(child.log_tail, what="start of the child")
    child.stop(10)
    assert child.exit_status == 7


def test_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    child = Child("sleep", ["sleep", "60"], tmp_path / "log")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    try:
        assert not child.wait(0.3)
    finally:
        child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties children to their parent")
def test_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from deploy.processes import Child\n"
        f"child = Child('sleep', ['sleep', '60'], Path({str(tmp_path / 'log')!r}))\n"
        "child.start(); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        eventually(lambda: child.name() == "sleep", what="the child's program")
        parent.kill()
    eventually(lambda: not child.is_running(), what="end of the child")


def test_different_and_below_the_ephemeral_range() -> None:
    found = processes.free_ports(20)
    assert len(set(found)) == 20
    assert set(found) <= set(processes.RANGE)


def test_nothing_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RANGE", range(20000, 20003))
    monkeypatch.setattr(processes, "is_free", lambda port: port == 20001)
    assert processes.free_ports(1) == [20001]
    with pytest.raises(StackError):
        processes.free_ports(2)


def test_keeps_what_is_free_and_replaces_what_is_taken() -> None:
    with socket.socket() as other:
        other.bind((processes.LOOPBACK, processes.free_ports(1)[0]))
        other.listen()
        taken = other.getsockname()[1]
        (free,) = processes.free_ports(1)

        chosen = processes.keep_or_choose({"a": taken, "b": free, "c": None})

        assert processes.accepts_connections(taken)
    assert chosen["b"] == free
    assert taken not in chosen.values()
    assert len(set(chosen.values())) == 3


def test_nobody_answers() -> None:
    assert not processes.accepts_connections(processes.free_ports(1)[0])
