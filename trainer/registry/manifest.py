"""The manifest of a model: its files with their digests."""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.base import Contract, canonical
from schemas.errors import ModelError
from schemas.runs import Digest


def inside(location: str) -> str:
    """Return ``location`` if it is a relative path without ``..``.

    Raises:
        ValueError: it is not.
    """
    parts = PurePosixPath(location)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or "\\" in location:
        raise ValueError(f"{location!r} is not a relative path without '..'")
    return location


def checked(location: str) -> str:
    """As :func:`inside`, of a location in the registry.

    Raises:
        ModelError: it lies outside.
    """
    try:
        return inside(location)
    except ValueError as error:
        raise ModelError(f"The location {location!r} lies outside the registry.") from error


class ModelFile(Contract):
    """A file of a model: its path in the folder (POSIX), size in bytes, and SHA-256."""

    path: Annotated[str, AfterValidator(inside)]
    # Not a Count, which is too small for a shard of a large model.
    size: int
    sha256: Digest


class Manifest(Contract):
    """The list of all files of a model, stored beside their folder.

    Attributes:
        folder: name of the files' folder.
    """

    format: Literal["retrail-model/1"] = "retrail-model/1"
    folder: Annotated[str, Field(pattern=r"^v[1-9][0-9]*-[0-9a-f]{16}$")]
    files: tuple[ModelFile, ...]

    @property
    def digest(self) -> str:
        """Digest of the model: SHA-256, 64 hex digits, over sorted paths, sizes and digests."""
        return digest(self.files)

    def difference(self, folder: Path) -> str | None:
        """The first difference between the files in ``folder`` and the manifest, or ``None``.

        Raises:
            ModelError: see :func:`survey`.
        """
        listed = {file.path: file for file in self.files}
        found = {file.path: file for file in survey(folder)}
        for path in sorted(listed.keys() | found.keys()):
            if path not in found:
                return f"{path} is missing"
            if path not in listed:
                return f"{path} does not belong to the model"
            if found[path] != listed[path]:
                return f"{path} has changed since it was published"
        return None


def survey(folder: Path) -> tuple[ModelFile, ...]:
    """All files of a folder, sorted by path.

    Raises:
        ModelError: the folder has an entry that is neither a file nor a folder, such as a link.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path} is not a regular file; a model must not contain links.")
        if path.is_file():
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            name = path.relative_to(folder).as_posix()
            found.append(ModelFile(path=name, size=path.stat().st_size, sha256=sha256))
    return tuple(found)


def digest(files: Iterable[ModelFile]) -> str:
    """Digest of a model; see :attr:`Manifest.digest`."""
    rows = sorted([file.path, file.size, file.sha256] for file in files)
    return hashlib.sha256(canonical(rows)).hexdigest()


def digest_of(folder: Path) -> str:
    """Digest of the model in a folder.

    Raises:
        ModelError: see :func:`survey`.
    """
    return digest(survey(folder))
