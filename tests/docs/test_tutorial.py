"""The tutorial's commands, run from its own text, end in a shipped release and a better search."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
ANSWER = "configparser.RawConfigParser.popitem"
UP_SECONDS, TRAIN_SECONDS = 420.0, 600.0


def blocks(text: str) -> list[str]:
    """The shell commands of a page, one block each."""
    return re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)


class Shell:
    """Runs blocks in one folder; ``source`` and ``export`` lines apply to later blocks, too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = ""
        (folder / ".venv").symlink_to(sys.prefix)
        path = f"{sys.prefix}/bin:{os.environ['PATH']}"
        # Wide enough for the whole id of a document in one line.
        wide = {"COLUMNS": "200"}
        self._environment = os.environ | wide | {"PYTHONPATH": str(ROOT), "PATH": path}

    def start(self, block: str, log: Path) -> "subprocess.Popen[bytes]":
        """Start a block in the background."""
        with log.open("wb") as file:
            return subprocess.Popen(
                ["bash", "-c", f"exec {block}"],
                cwd=self._folder,
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def run(self, block: str) -> str:
        """Run a block; returns its output."""
        done = subprocess.run(
            ["bash", "-e", "-c", self._before + block],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TRAIN_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = block.splitlines(keepends=True)
        self._before += "".join(x for x in lines if x.startswith(("source ", "export ")))
        return done.stdout


@pytest.mark.deploy
@pytest.mark.timeout(1200)
def test_tutorial(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    up, search, publish, pairs, train, again = blocks(PAGE.read_text())
    log = tmp_path / "up.log"
    stack = shell.start(up, log)

    def ready() -> bool:
        assert stack.poll() is None, log.read_text()
        return "The sample is ready" in log.read_text()

    def mined() -> str:
        """The last line of `retrail pairs`, once it does not change any more."""
        last, before = shell.run(pairs).splitlines()[-1], counts[-1]
        counts.append(last)
        return last if last == before else ""

    counts = [""]
    try:
        eventually(ready, UP_SECONDS, "sample", interval=0.5)
        before = shell.run(search)
        assert "3 hits from release 1." in before
        assert ANSWER not in before
        shell.run(publish)
        found = eventually(mined, 120, "pairs", interval=1.0)
        assert re.match(r"[67],\d{3} pairs on labelled-pairs: 1,\d{3} relevant", found)
        assert "Release 2: candidate" in shell.run(train)
        eventually(lambda: "3 hits from release 2." in shell.run(again), 300, "swap", interval=2.0)
        # The list of releases comes before the hits.
        first = re.findall(r"^ *1 .*$", shell.run(again), re.M)[-1]
        assert ANSWER in first
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait(60)
