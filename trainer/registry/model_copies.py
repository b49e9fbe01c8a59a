"""Copies on this machine of models that lie elsewhere: each a folder named by its digest."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from schemas.errors import ModelError
from trainer.registry import model_files

log = structlog.get_logger(__name__)

KEPT = 4
"""Copies that stay however old they are: parent, child, and what a rollback goes back to."""

KEPT_SECONDS = 24 * 3600.0
"""A copy opened so lately stays too: another process may be about to read it."""


class ModelCopies:
    """A folder of copies, which any number of processes may share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, digest: str) -> Path | None:
        """The copy of a model, verified; one that was damaged is removed."""
        found = self.folder / digest
        if not found.is_dir():
            return None
        try:
            intact = model_files.digest_of(found) == digest
        except (ModelError, OSError):
            intact = False
        if not intact:
            log.warning("copy of a model was damaged, removing it", folder=str(found))
            model_files.remove(found)
            return None
        os.utime(found)
        return found

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """An empty folder, gone afterwards unless it was kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with model_files.being_written(self.folder / name) as folder:
            folder.mkdir()
            yield folder

    def keep(self, folder: Path, digest: str) -> Path:
        """Make what was written the copy of a model, and remove old ones."""
        kept = self.folder / digest
        model_files.move(folder, kept)
        os.utime(kept)
        self._forget()
        return kept

    def _forget(self) -> None:
        copies = [path for path in self.folder.glob("[0-9a-f]*") if path.is_dir()]
        copies.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in copies[KEPT:]:
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                model_files.remove(path)
