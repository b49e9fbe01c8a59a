"""A registry in a folder.

::

    <folder>/<retriever>/v3/                  a model in sentence-transformers format
    <folder>/<retriever>/v3.md                its model card, no part of its digest
    <folder>/<retriever>/training/<digest>.jsonl
    <folder>/<retriever>/.<name>.<random>     being written; left behind only by a killed process
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ModelError
from schemas.releases import Model
from trainer.registry import model_files

_VERSION = re.compile(r"v([1-9]\d*)")


class FolderStorage:
    """Keeps models in a folder; a rename publishes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return str(self._folder)

    def require(self, *, writing: bool) -> None:
        if writing:
            self._make(self._folder)

    @contextmanager
    def writing(self, location: str) -> Iterator[Path]:
        target = self._path(location)
        self._make(target.parent)
        with model_files.being_written(target) as folder:
            folder.mkdir()
            yield folder

    def add(self, location: str, folder: Path) -> bool:
        return model_files.move(folder, self._path(location))

    def digest(self, location: str) -> str | None:
        folder = self._path(location)
        return model_files.digest_of(folder) if folder.is_dir() else None

    def versions(self, home: str) -> list[int]:
        folder = self._path(home)
        if not folder.is_dir():
            return []
        found = (_VERSION.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
        return [int(match[1]) for match in found if match]

    def open(self, model: Model) -> Path:
        folder = self._path(model.location)
        if not folder.is_dir():
            raise ModelError(
                f"The registry {self._folder} has no model {model.location}. Point "
                "RETRAIL_REGISTRY (or RETRAIL_DATA_DIR, whose folder registry is the default) to "
                "the registry that the release was published in."
            )
        if model_files.digest_of(folder) != model.digest:
            raise ModelError(
                f"The files in {folder} are not those that were published: their digest is not "
                f"{model.digest}. Restore the folder from a copy, or roll back."
            )
        return folder

    def has(self, location: str) -> bool:
        return self._path(location).is_file()

    def read(self, location: str) -> bytes:
        return self._path(location).read_bytes()

    def write(self, location: str, content: bytes) -> str:
        target = self._path(location)
        self._make(target.parent)
        model_files.write_whole(target, content)
        return str(target)

    def _path(self, location: str) -> Path:
        return self._folder / location

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(
                f"Cannot write the registry {self._folder}: {error.strerror}. Set "
                "RETRAIL_REGISTRY or RETRAIL_DATA_DIR to a folder that this user can write."
            ) from error
