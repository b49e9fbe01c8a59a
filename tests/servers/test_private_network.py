"""A server in its own network ends with this process, or before it."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.processes import free_ports
from tests.servers import private_network
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")

PROGRAM = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); "


def started(tmp_path: Path, what_then: str) -> subprocess.Popen[bytes]:
    [port] = free_ports(1)
    return subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", private_network.__file__, str(port), "19530"),
            *(sys.executable, "-c", PROGRAM + what_then, str(tmp_path / "pid")),
        ]
    )


def test_the_programs_status_is_passed_on(tmp_path: Path) -> None:
    assert started(tmp_path, "sys.exit(7)").wait(20) == 7


def test_a_killed_proxy_takes_the_program_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    process = started(tmp_path, "time.sleep(600)")
    try:
        eventually(lambda: pid.exists() and pid.read_text(), what="the program")
        running = Path("/proc", pid.read_text())
        assert running.exists()
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not running.exists(), what="the program's end")
