"""What a registry needs of the place where it keeps its models."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from schemas.releases import Model


class Storage(Protocol):
    """A folder, or object storage.

    Locations are relative POSIX paths; a model's is ``…/v<version>``. Where that cannot be reached
    every method raises :class:`schemas.errors.RegistryError`, and OSError if the local disk
    fails.
    """

    @property
    def name(self) -> str:
        """The folder or URL, for messages."""

    def require(self, *, writing: bool) -> None:
        """Try whether it can be read, and written to, so that no long work ends in vain."""

    def writing(self, location: str) -> AbstractContextManager[Path]:
        """An empty folder to write a model in; gone afterwards, unless it was added."""

    def add(self, location: str, folder: Path) -> bool:
        """Publish what was written, whole; whether it was published, and nothing was there yet."""

    def digest(self, location: str) -> str | None:
        """The digest of a published model; ``None`` if there is none."""

    def versions(self, home: str) -> list[int]:
        """The versions published under a location, in any order."""

    def open(self, model: Model) -> Path:
        """A folder on this machine with the files of a model, each verified.

        Raises:
            ModelError: it is not there, or its files are not those that were published.
        """

    def has(self, location: str) -> bool:
        """Whether there is such a file."""

    def read(self, location: str) -> bytes:
        """A file.

        Raises:
            FileNotFoundError: there is none.
        """

    def write(self, location: str, content: bytes) -> str:
        """Put a file, whole, in the place of an earlier one; returns where it lies, for people."""
