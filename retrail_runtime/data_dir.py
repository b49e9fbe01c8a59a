"""Each process keeps its files in a subdirectory of its own, locked while it lives."""

import fcntl
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError
from schemas.settings import Settings


@dataclass(frozen=True, slots=True)
class Claim:
    """A locked directory; the lock goes with the process, however it ends."""

    path: Path
    lock: int


def claim(settings: Settings, role: str) -> Claim:
    """Lock the first free of ``<data_dir>/<role>``, ``<role>-2``, ``<role>-3``, ….

    A worker that is restarted gets its old directory back, so caches in it survive.

    Raises:
        ConfigurationError: the data directory cannot be written.
    """
    for number in itertools.count(1):
        path = settings.data_dir / (role if number == 1 else f"{role}-{number}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"Cannot write {path}: {error.strerror}. Set RETRAIL_DATA_DIR to a folder that "
                "this user can write."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return Claim(path, lock)
    raise AssertionError("unreachable")
