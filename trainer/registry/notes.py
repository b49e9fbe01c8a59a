"""Training files and results of the gate that an erasure changes, or retention removes."""

from collections.abc import Callable
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import ValidationError

from schemas.base import Contract
from schemas.errors import ModelError
from schemas.runs import Digest
from trainer.data.examples import file_digest
from trainer.registry.manifest import checked
from trainer.registry.storage import Storage

SUFFIX = ".erased.json"
"""Of the note beside a file."""


class Note(Contract):
    """Beside a file that was changed or removed on purpose.

    Attributes:
        digests: of the file after each erasure; the last one may not be written yet.
        erasures: their ids.
        expired: whether the file was removed by retention.
    """

    digests: tuple[Digest, ...] = ()
    erasures: tuple[str, ...] = ()
    expired: bool = False


class Notes:
    """The files of one registry; every method raises ``RegistryError`` if it cannot be used."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, location: str) -> Note:
        """What became of a file; an empty note if it is as it was written.

        Raises:
            ModelError: the note is damaged.
        """
        try:
            return Note.model_validate_json(self._storage.read(f"{location}{SUFFIX}"))
        except FileNotFoundError:
            return Note()
        except ValidationError as error:
            raise ModelError(
                f"{self._storage.name}/{location}{SUFFIX} is damaged: {error}."
            ) from error

    def erase(self, location: str, rewrite: Callable[[bytes], bytes], erasure_id: str) -> bool:
        """Rewrite a file without what was erased; returns whether it changed.

        The note names the erasures and the new digest. It is written first. *A crash before the
        file* leaves the file with its former digest, and a repeated call rewrites it.
        """
        try:
            content = self._storage.read(checked(location))
        except FileNotFoundError:
            return False
        rewritten = rewrite(content)
        if rewritten == content:
            return False
        known = self.read(location)
        changes = {
            "digests": (*known.digests, file_digest(rewritten)),
            "erasures": (*known.erasures, erasure_id),
        }
        self._write(location, known.model_copy(update=changes))
        self._storage.write(location, rewritten)
        return True

    def expire(self, location: str) -> bool:
        """Remove a file for good; returns whether it was there.

        The note is written first. *A crash before the removal* leaves the file, and a repeated call
        removes it.
        """
        place = PurePosixPath(checked(location))
        if place.name not in self._storage.list(str(place.parent)):
            return False
        self._write(location, self.read(location).model_copy(update={"expired": True}))
        self._storage.remove(location)
        return True

    def modified(self, location: str) -> datetime:
        """When a file was written last."""
        return self._storage.modified(location)

    def _write(self, location: str, note: Note) -> None:
        self._storage.write(f"{location}{SUFFIX}", note.to_json())
