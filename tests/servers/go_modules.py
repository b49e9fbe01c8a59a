"""Programs and files of Go modules: built or fetched once, into the user's cache."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import structlog
from filelock import FileLock

from deploy.errors import MissingToolError, StackError
from deploy.processes import Child
from retrail_runtime.files import user_cache

log = structlog.get_logger(__name__)

BUILD_TIMEOUT = 1800.0
"""Seconds; two cores take about three minutes."""

FETCH_TIMEOUT = 300.0


def cached(package: str, version: str) -> Path:
    """Where a program is kept, beside Kafka's jars."""
    name = package.rpartition("/")[2]
    return user_cache() / f"{name}-{version}" / name


def built(package: str, version: str) -> Path:
    """A program, built now if this user has none yet.

    It is built in a temporary folder and renamed when it is complete, so an interruption leaves
    nothing; a second process at the same time waits for the first.

    Raises:
        MissingToolError: it must be built, and there is no Go.
        StackError: it could not be built.
    """
    program = cached(package, version)
    if program.is_file():
        return program
    go = go_command(package, version)
    program.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(program.with_suffix(".lock")):
        if program.is_file():
            return program
        log.info("building a program, once", package=package, version=version, into=str(program))
        with tempfile.TemporaryDirectory(dir=program.parent) as part:
            child = Child(
                "go",
                [go, "install", f"{package}@v{version}"],
                Path(part) / "go.log",
                environment={"GOBIN": part},
            )
            if not child.run(BUILD_TIMEOUT) or child.exit_status != 0:
                raise StackError(f"Go could not build {package} {version}:\n{child.log_tail(8)}")
            (Path(part) / program.name).rename(program)
    return program


def folder(module: str, version: str) -> Path:
    """The files of a module, in Go's own cache.

    Raises:
        MissingToolError: there is no Go.
        StackError: the module could not be fetched.
    """
    done = subprocess.run(
        [go_command(module, version), "mod", "download", "-json", f"{module}@v{version}"],
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT,
    )
    if done.returncode != 0:
        raise StackError(f"Go could not fetch {module} {version}:\n{done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def go_command(needed: str, version: str) -> str:
    """The path of Go, which ``needed`` is built with; raises MissingToolError."""
    path = shutil.which("go")
    if path is None:
        raise MissingToolError(
            f"{needed} {version} must be built or fetched once and there is no Go on the PATH. "
            "Install Go 1.25 or newer."
        )
    return path
