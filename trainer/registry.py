"""The registry of models and training files: a folder, published into whole or not at all.

::

    <root>/<retriever>/v3/                  a model in sentence-transformers format
    <root>/<retriever>/v3.md                its model card, no part of its digest
    <root>/<retriever>/training/<digest>.jsonl
    <root>/<retriever>/.<name>.<random>     being written; left behind only by a killed process

Locations in records are relative to the root, so a registry can be moved or mounted elsewhere.
"""

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from schemas.base import canonical
from schemas.errors import ModelError
from schemas.releases import Model
from schemas.runs import TrainingFile
from trainer import training_file
from trainer.encoder import Encoder
from trainer.examples import TrainingExample

log = structlog.get_logger(__name__)

ABANDONED_SECONDS = 24 * 3600.0
"""A half-written entry of this age belongs to a process that was killed."""

_VERSION = re.compile(r"v([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class Published:
    """A model in the registry."""

    version: int
    model: Model


class Registry:
    """Models and training files of the retrievers under one folder.

    Any number of processes may share it: what is published never changes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(self, retriever: str, version: int, write: Callable[[Path], None]) -> Published:
        """Publish a model: it appears whole, on the disk, or not at all.

        To publish what is there already, with the same files, changes nothing.

        Args:
            retriever: the family.
            version: 1, 2, ….
            write: fills an existing empty folder, for instance ``encoder.save``.

        Raises:
            ModelError: the version exists with other files, or the folder cannot be written.
        """
        home = self._home(retriever)
        target = home / f"v{version}"
        try:
            with _being_written(target) as folder:
                folder.mkdir()
                write(folder)
                digest = digest_of(folder)
                _sync_tree(folder)
                if _move(folder, target):
                    _sync(home)
                    log.info("model published", retriever=retriever, version=version)
        except OSError as error:
            raise ModelError(
                f"Cannot publish version {version} of {retriever} into {home}: {error}. Nothing "
                "was published; free space or permissions and try again."
            ) from error
        found = self.published(retriever, version)
        assert found is not None
        if found.model.digest != digest:
            raise ModelError(
                f"Version {version} of {retriever} is in the registry already, with other files "
                f"({target}). Versions never change: use the published one, or another registry."
            )
        return found

    def published(self, retriever: str, version: int) -> Published | None:
        """What is published as this version, or nothing: a repeated run need not train again."""
        location = f"{retriever}/v{version}"
        folder = self.root / location
        if not folder.is_dir():
            return None
        return Published(version, Model(location=location, digest=digest_of(folder)))

    def versions(self, retriever: str) -> list[int]:
        """Versions that are published, ascending."""
        home = self.root / retriever
        if not home.is_dir():
            return []
        found = (_VERSION.fullmatch(path.name) for path in home.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def open(self, model: Model) -> Path:
        """The folder of a model, its digest verified.

        Raises:
            ModelError: it is not there, or its files are not those that were published.
        """
        folder = self._path(model.location)
        if not folder.is_dir():
            raise ModelError(
                f"The registry {self.root} has no model {model.location}. Point RETRAIL_DATA_DIR "
                "to the registry that the release was published in."
            )
        if digest_of(folder) != model.digest:
            raise ModelError(
                f"The files in {folder} are not those that were published: their digest is not "
                f"{model.digest}. Restore the folder from a copy, or roll back."
            )
        return folder

    def load(self, model: Model) -> Encoder:
        """The encoder of a release; its prefixes, pooling and length limit lie with the model.

        Raises:
            ModelError: see :meth:`open` and :meth:`trainer.encoder.Encoder.load`.
        """
        return Encoder.load(self.open(model), max_tokens=None)

    def write_card(self, model: Model, text: str) -> Path:
        """Put the model card beside a published model, in the place of an earlier one.

        The gate's decision is in it, which comes after the model: so it is no file of the model.

        Raises:
            ModelError: it cannot be written.
        """
        folder = self._path(model.location)
        target = folder.with_name(f"{folder.name}.md")
        try:
            with _being_written(target) as path:
                with path.open("w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                path.chmod(0o644)
                path.replace(target)
                _sync(target.parent)
        except OSError as error:
            raise ModelError(
                f"Cannot write the model card {target}: {error}. Free space or permissions and "
                "try again."
            ) from error
        return target

    def store_training_file(
        self, retriever: str, examples: tuple[TrainingExample, ...]
    ) -> TrainingFile:
        """Freeze examples under the digest of their canonical bytes; idempotent."""
        content = training_file.dump(examples)
        digest = training_file.digest(content)
        location = f"{retriever}/training/{digest}.jsonl"
        target = self._home(retriever) / "training" / f"{digest}.jsonl"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            with _being_written(target) as path:
                with path.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                path.rename(target)
                _sync(target.parent)
        return TrainingFile(location=location, digest=digest, examples=len(examples))

    def load_training_file(self, frozen: TrainingFile) -> tuple[TrainingExample, ...]:
        """The examples of a manifest.

        Raises:
            InputError: the file is missing or malformed.
            ModelError: it is not the file that the manifest names.
        """
        path = self._path(frozen.location)
        examples = training_file.load(path)
        if training_file.digest(path.read_bytes()) != frozen.digest:
            raise ModelError(
                f"The training file {path} is not the one that the manifest names: its digest is "
                f"not {frozen.digest}. Restore it from a copy of the registry."
            )
        return examples

    def _home(self, retriever: str) -> Path:
        home = self.root / retriever
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(
                f"Cannot write the registry {self.root}: {error.strerror}. Set RETRAIL_DATA_DIR "
                "to a folder that this user can write."
            ) from error
        return home

    def _path(self, location: str) -> Path:
        parts = PurePosixPath(location)
        if parts.is_absolute() or ".." in parts.parts:
            raise ModelError(f"The location {location!r} lies outside the registry.")
        return self.root / parts


def digest_of(folder: Path) -> str:
    """SHA-256, 64 hex digits, over the sorted relative paths, sizes and digests of all files.

    Raises:
        ModelError: something in the folder is no plain file, or cannot be read.
    """
    rows = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path} is no plain file; a published model has no links.")
        if path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            rows.append([path.relative_to(folder).as_posix(), path.stat().st_size, content])
    return hashlib.sha256(canonical(sorted(rows))).hexdigest()


@contextmanager
def _being_written(target: Path) -> Iterator[Path]:
    """A fresh path beside ``target`` that is gone afterwards, unless it was renamed."""
    for old in target.parent.glob(f".{target.name}.*"):
        if time.time() - old.stat().st_mtime > ABANDONED_SECONDS:
            _remove(old)
    path = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move(folder: Path, target: Path) -> bool:
    """Rename, unless ``target`` exists: of two processes that race, one gets true."""
    if target.exists():
        return False
    try:
        folder.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        # safetensors writes for its own user alone, while other users' workers read the registry.
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
