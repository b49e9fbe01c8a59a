"""A real standalone Milvus, fetched once from PyPI into the user's cache.

The package ``milvus`` (the last version is 2.3.5) holds the server for Linux x86-64, compressed,
and a launcher. It gets its own virtual environment; the launcher is not used, because it kills
the server a second after its stop signal.
"""

import lzma
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog

from deploy.errors import MissingToolError, StackError
from deploy.processes import Child
from retrail_runtime.files import user_cache

log = structlog.get_logger(__name__)

MILVUS_VERSION = "2.3.5"
FETCH_TIMEOUT = 600.0
"""Seconds for 55 MB."""


def require_platform() -> None:
    """Fail now if the standalone server cannot run on this machine.

    Raises:
        MissingToolError: not Linux x86-64, or the kernel gives this user no network of his own.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise MissingToolError(
            f"The standalone Milvus of PyPI runs on Linux x86-64 only, and this is "
            f"{platform.system()} {platform.machine()}."
        )
    attempt = "import private_network; private_network.leave_network()"
    tried = subprocess.run(
        [sys.executable, "-S", "-c", attempt],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if tried.returncode != 0:
        why = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingToolError(
            "Milvus listens on every interface, so it must run in its own network, which the "
            f"kernel refuses to this user ({why})."
        )


def cache_folder() -> Path:
    """Where the server is kept, beside Kafka's jars."""
    return user_cache() / f"milvus-{MILVUS_VERSION}"


def files() -> Path:
    """The folder with the server: ``bin/milvus`` with its libraries, and templates of its settings.

    Fetched and unpacked (250 MB) beside its place and renamed when it is complete, so that neither
    an interruption nor a second process at the same time leaves half of it.

    Raises:
        MissingToolError: it does not run on this machine.
        StackError: it could not be fetched.
    """
    require_platform()
    folder = cache_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    log.info("fetching Milvus, once", version=MILVUS_VERSION, into=str(folder))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as part:
        _fetch(Path(part) / "venv", Path(part) / "pip.log")
        complete = Path(part) / "complete"
        _unpack(Path(part) / "venv", complete)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _fetch(environment: Path, log_file: Path) -> None:
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--no-input"]
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [*pip, "--disable-pip-version-check", "--only-binary=:all:", f"milvus=={MILVUS_VERSION}"],
    ):
        child = Child("pip", command, log_file)
        if not child.run(FETCH_TIMEOUT) or child.exit_status != 0:
            raise StackError(
                f"Milvus {MILVUS_VERSION} could not be fetched from PyPI:\n{child.log_tail(8)}"
            )


def _unpack(environment: Path, into: Path) -> None:
    (packed,) = environment.glob("lib/python*/site-packages/milvus/data")
    (into / "bin").mkdir(parents=True)
    for template in ("config.yaml.template", "glog.conf"):
        (into / template).write_bytes((packed / template).read_bytes())
    for source in (packed / "bin").glob("*.lzma"):
        target = into / "bin" / source.stem
        with lzma.open(source) as compressed, target.open("wb") as file:
            while piece := compressed.read(1024 * 1024):
                file.write(piece)
        target.chmod(0o755)
