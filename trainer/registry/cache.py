"""Local cache of the registry's models: a folder that all processes of a machine share.

::

    <folder>/<digest>/          the files of a model
    <folder>/<digest>.lock      locked while the files are verified, downloaded or removed
    <folder>/.<random>/         temporary; a killed process leaves it behind
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

from retrail_runtime.files import private_folder
from schemas.errors import ModelError
from trainer.registry.manifest import digest_of

log = structlog.get_logger(__name__)

KEPT = 4
"""Most recently opened models that are never pruned: parent, child, and targets of a rollback."""

KEPT_SECONDS = 24 * 3600.0
"""A model opened within this time is never pruned: another process may be about to read it."""


class ModelCache:
    """A folder of models; each is verified when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, digest: str, download: Callable[[Path], object]) -> Path:
        """The folder of a model; if several processes open a missing one, one of them downloads it.

        Args:
            digest: of the model.
            download: fills an empty folder; called if the model is missing or damaged.

        Raises:
            OSError: the cache cannot be read or written.
        """
        private_folder(self.folder)
        with self._lock(digest):
            copy = self.folder / digest
            if not _intact(copy, digest):
                with self.writing() as folder:
                    download(folder)
                    folder.rename(copy)
            os.utime(copy)
            return copy

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A temporary empty folder, removed at the end unless renamed; then old models are pruned.

        Raises:
            OSError: the cache cannot be written.
        """
        private_folder(self.folder)
        folder = self.folder / f".{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._prune()

    def _prune(self) -> None:
        """Remove old models, and temporary folders of killed processes; locked models stay."""
        old = time.time() - KEPT_SECONDS
        folders = [path for path in self.folder.iterdir() if path.is_dir()]
        for path in folders:
            if path.name.startswith(".") and _last_used(path) < old:
                shutil.rmtree(path, ignore_errors=True)
        models = [path for path in folders if not path.name.startswith(".")]
        for path in sorted(models, key=_last_used, reverse=True)[KEPT:]:
            with suppress(Timeout), self._lock(path.name, timeout=0):
                if _last_used(path) < old:
                    shutil.rmtree(path, ignore_errors=True)

    def _lock(self, digest: str, timeout: float = -1) -> FileLock:
        return FileLock(self.folder / f"{digest}.lock", timeout=timeout)


def _intact(copy: Path, digest: str) -> bool:
    """Whether the folder holds the model with this digest; a damaged one is removed."""
    if not copy.is_dir():
        return False
    try:
        if digest_of(copy) == digest:
            return True
    except (ModelError, OSError) as error:
        log.warning("cannot read the cached model", folder=str(copy), error=str(error))
    log.warning("cached model is damaged, downloading it again", folder=str(copy))
    shutil.rmtree(copy)
    return False


def _last_used(path: Path) -> float:
    """Seconds since the epoch."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        # Another process has removed it.
        return 0.0
