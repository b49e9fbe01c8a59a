"""Settings as ``RETRAIL_…`` variables, for child processes and for the file of other shells."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import structlog
from dotenv import dotenv_values
from pydantic import SecretStr

from retrail_runtime.files import atomic_write
from schemas.errors import ConfigurationError
from schemas.settings import Settings, mistakes
from schemas.settings.loading import STOPPED

log = structlog.get_logger(__name__)

ALWAYS = frozenset({"kafka_bootstrap", "milvus_uri", "data_dir"})
"""Written even if they are the default, because another process may have another default."""

MARK = "# Written by `retrail up`, which started: "

_PLAIN = re.compile(r"[A-Za-z0-9_./:,@%+=-]*")


def variables(settings: Settings) -> dict[str, str]:
    """Variables for another process with these settings, secrets included.

    Omits settings that were not set, except the addresses and the data directory.
    """
    found = {}
    for name in sorted(settings.model_fields_set | ALWAYS):
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is not None:
            found[f"RETRAIL_{name.upper()}"] = str(value)
    return found


def secrets(settings: Settings) -> list[str]:
    """Names of the variables that must not be printed."""
    names = sorted(settings.model_fields_set)
    return [f"RETRAIL_{n.upper()}" for n in names if isinstance(getattr(settings, n), SecretStr)]


def header(started: Collection[str]) -> str:
    """First line of an environment file: the variables of the servers that the stack started."""
    return f"{MARK}{' '.join(sorted(started))}\n"


def started_here(path: Path) -> set[str]:
    """The variables in an environment file whose servers stopped with their stack."""
    if not path.is_file():
        return set()
    first = path.read_text().partition("\n")[0]
    return set(first.removeprefix(MARK).split()) if first.startswith(MARK) else set()


def mark_stopped(path: Path, written: str) -> None:
    """Add :data:`schemas.settings.loading.STOPPED` to the file, unless another stack wrote it."""
    if path.is_file() and path.read_text() == written:
        atomic_write(path, f"{written}{STOPPED}\n", mode=0o600)


def adopt_file() -> None:
    """Put the variables of ``RETRAIL_ENV_FILE`` into the environment of a new stack.

    Omits the addresses of servers that the earlier stack started: a shell that uses the file of an
    earlier stack can start a new one.
    """
    named = os.environ.pop("RETRAIL_ENV_FILE", None)
    if named is None:
        return
    gone = started_here(Path(named))
    if Path(named).is_file():
        for mistake in mistakes({"RETRAIL_ENV_FILE": named}):
            log.warning(mistake)
    for name, value in dotenv_values(named).items():
        if name not in gone and value is not None:
            os.environ.setdefault(name, value)


def rendered(values: Mapping[str, str]) -> str:
    """An environment file as ``RETRAIL_ENV_FILE`` and ``set -a; . FILE`` read it."""
    return "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())


def write(path: Path, values: Mapping[str, str], started: Collection[str] = ()) -> str:
    """Write an environment file atomically, readable by this user only: it may hold secrets.

    Returns its content.

    Args:
        path: replaced if it exists.
        values: by :func:`variables`.
        started: see :func:`header`.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        content = header(started) + rendered(values)
        atomic_write(path, content, mode=0o600)
        return content
    except OSError as error:
        raise ConfigurationError(f"Cannot write {path}: {error.strerror}.") from error


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
