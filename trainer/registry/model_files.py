"""The files of a model: their digest, and writing that happens whole or not at all."""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from schemas.base import Contract, canonical
from schemas.errors import ModelError
from schemas.runs import Digest

ABANDONED_SECONDS = 24 * 3600.0
"""A half-written entry of this age belongs to a process that was killed."""


def inside(location: str) -> str:
    """``location`` itself, if it is a relative path that stays below where it starts.

    Raises:
        ValueError: it is not.
    """
    parts = PurePosixPath(location)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or "\\" in location:
        raise ValueError(f"{location!r} is no relative path that stays inside")
    return location


class ModelFile(Contract):
    """One file of a model: its path in the folder (POSIX), bytes, and SHA-256."""

    path: Annotated[str, AfterValidator(inside)]
    # A shard of a large model has more bytes than a Count counts.
    size: int
    sha256: Digest


def survey(folder: Path) -> tuple[ModelFile, ...]:
    """All files of a folder, by path.

    Raises:
        ModelError: something in the folder is no plain file.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path} is no plain file; a published model has no links.")
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found.append(ModelFile(path=name, size=path.stat().st_size, sha256=sha256_of(path)))
    return tuple(found)


def digest(files: Iterable[ModelFile]) -> str:
    """SHA-256, 64 hex digits, over the sorted relative paths, sizes and digests of all files."""
    rows = sorted([file.path, file.size, file.sha256] for file in files)
    return hashlib.sha256(canonical(rows)).hexdigest()


def digest_of(folder: Path) -> str:
    """The digest of the model in a folder.

    Raises:
        ModelError: see :func:`survey`.
    """
    return digest(survey(folder))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def being_written(target: Path) -> Iterator[Path]:
    """A fresh path beside ``target`` that is gone afterwards, unless it was renamed."""
    for old in target.parent.glob(f".{target.name}.*"):
        if time.time() - old.stat().st_mtime > ABANDONED_SECONDS:
            remove(old)
    path = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    try:
        yield path
    finally:
        remove(path)


def write_whole(target: Path, content: bytes) -> None:
    """Put a file in the place of an earlier one, if there is any.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    with being_written(target) as path:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o644)
        path.replace(target)
        sync(target.parent)


def move(folder: Path, target: Path) -> bool:
    """Rename a written folder, on the disk, unless ``target`` exists: of two that race one gets it.

    Raises:
        OSError: it cannot be moved.
    """
    _sync_tree(folder)
    if target.exists():
        return False
    try:
        folder.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    sync(target.parent)
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing, if it is gone."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        # safetensors writes for its own user alone, while other users' workers read the registry.
        path.chmod(0o755 if path.is_dir() else 0o644)
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Get a file, or the entries of a folder, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
