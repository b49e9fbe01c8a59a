"""``retrail up`` as a process."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def retrail_up(
    folder: Path, *options: str, before: Sequence[str] = (), **extra: str
) -> Iterator[subprocess.Popen[str]]:
    """``retrail up`` in a process of its own, killed at the end if it still runs.

    ``before``: words of a command that runs the rest of its words.
    """
    environment = {name: value for name, value in os.environ.items() if "RETRAIL" not in name}
    environment.pop("JAVA_HOME", None)
    process = subprocess.Popen(
        [
            *(*before, sys.executable, "-m", "retrail_cli"),
            *("up", "--data-dir", str(folder / "d"), *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | extra,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
