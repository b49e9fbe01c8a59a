"""Locks on the data directory: each process keeps its files in a folder of its own."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from schemas.errors import ConfigurationError
from schemas.settings import Settings


@dataclass(frozen=True, slots=True)
class Claim:
    """A locked folder; the lock ends with the process, however that ends."""

    path: Path
    lock: FileLock


def claim(settings: Settings, role: str) -> Claim:
    """Lock the first free of ``<data_dir>/<role>``, ``<role>-2``, ``<role>-3``, ….

    A worker that is restarted gets its old folder back, so caches in it survive.

    Raises:
        ConfigurationError: the data directory cannot be written.
    """
    for number in itertools.count(1):
        path = settings.data_dir / (role if number == 1 else f"{role}-{number}")
        lock = try_lock(path / "lock")
        if lock is not None:
            return Claim(path, lock)
    raise AssertionError("unreachable")


def try_lock(path: Path) -> FileLock | None:
    """Lock a file, made with its folder if it is not there; ``None`` if another holds it.

    The lock ends when the object is released or dropped, or with the process.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    lock = FileLock(path, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write {path.parent}: {error.strerror}. Set RETRAIL_DATA_DIR to a folder that "
            "this user can write."
        ) from error
    return lock
