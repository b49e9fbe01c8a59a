"""The registry of models and training files, published into whole or not at all.

It is a folder (:mod:`trainer.registry.registry_folder`) or object storage
(:mod:`trainer.registry.registry_objects`). Locations in records are relative to it, so a registry
can be moved or mounted elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from schemas.errors import InputError, ModelError
from schemas.releases import Model
from schemas.runs import TrainingFile
from schemas.settings import Settings
from trainer.data import training_file
from trainer.data.examples import TrainingExample
from trainer.model.encoder import Encoder
from trainer.registry.model_files import digest_of, inside
from trainer.registry.registry_folder import FolderStorage
from trainer.registry.registry_storage import Storage

__all__ = ["Published", "Registry", "digest_of"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """A model in the registry."""

    version: int
    model: Model


class Registry:
    """Models and training files of the retrievers in one place.

    Any number of processes may share it: what is published never changes. Where object storage
    cannot be reached, every method raises :class:`schemas.errors.RegistryError`.
    """

    def __init__(self, storage: Storage | Path) -> None:
        """Nothing is read or written yet.

        Args:
            storage: where things lie; a path is a folder.
        """
        self._storage = FolderStorage(storage) if isinstance(storage, Path) else storage

    @classmethod
    def of(cls, settings: Settings) -> "Registry":
        """The registry of an installation: ``RETRAIL_REGISTRY``.

        Raises:
            ConfigurationError: no installed library speaks the protocol of its URL.
        """
        if settings.registry_url is None:
            return cls(settings.registry_dir)
        # What speaks to S3 takes seconds to import.
        from trainer.registry.registry_objects import ObjectStorage

        return cls(ObjectStorage(settings.registry_url, settings.registry_dir))

    @property
    def name(self) -> str:
        """The folder or URL, for messages."""
        return self._storage.name

    def require(self, *, writing: bool) -> None:
        """Fail now, and not after an hour's training, if it cannot be read, or written to."""
        self._storage.require(writing=writing)

    def publish(self, retriever: str, version: int, write: Callable[[Path], None]) -> Published:
        """Publish a model: it appears whole, durably, or not at all.

        To publish what is there already, with the same files, changes nothing. Of two processes
        that publish different files as one version, one succeeds.

        Args:
            retriever: the family.
            version: 1, 2, ….
            write: fills an existing empty folder, for instance ``encoder.save``.

        Raises:
            ModelError: the version exists with other files, or the folder cannot be written.
        """
        location = f"{retriever}/v{version}"
        try:
            with self._storage.writing(location) as folder:
                write(folder)
                digest = digest_of(folder)
                if self._storage.add(location, folder):
                    log.info("model published", retriever=retriever, version=version)
        except OSError as error:
            raise ModelError(
                f"Cannot publish version {version} of {retriever} into {self.name}: {error}. "
                "Nothing was published; free space or permissions and try again."
            ) from error
        found = self.published(retriever, version)
        if found is None or found.model.digest != digest:
            raise ModelError(
                f"Version {version} of {retriever} is in the registry already, with other files "
                f"({self.name}, {location}). Versions never change: use the published one, or "
                "another registry."
            )
        return found

    def published(self, retriever: str, version: int) -> Published | None:
        """What is published as this version, or nothing: a repeated run need not train again."""
        location = f"{retriever}/v{version}"
        digest = self._storage.digest(location)
        if digest is None:
            return None
        return Published(version, Model(location=location, digest=digest))

    def versions(self, retriever: str) -> list[int]:
        """Versions that are published, ascending."""
        return sorted(self._storage.versions(retriever))

    def open(self, model: Model) -> Path:
        """A folder on this machine with the files of a model, their digests verified.

        Raises:
            ModelError: it is not there, or its files are not those that were published.
        """
        return self._storage.open(Model(location=_inside(model.location), digest=model.digest))

    def load(self, model: Model) -> Encoder:
        """The encoder of a release; its prefixes, pooling and length limit lie with the model.

        Raises:
            ModelError: see :meth:`open` and :meth:`trainer.model.encoder.Encoder.load`.
        """
        return Encoder.load(self.open(model), max_tokens=None)

    def write_card(self, model: Model, text: str) -> str:
        """Put the model card beside a published model, in the place of an earlier one.

        The gate's decision is in it, which comes after the model: so it is no file of the model.

        Returns:
            Where it lies: a path or a URL.

        Raises:
            ModelError: it cannot be written.
        """
        location = f"{_inside(model.location)}.md"
        try:
            return self._storage.write(location, text.encode())
        except OSError as error:
            raise ModelError(
                f"Cannot write the model card {location} into {self.name}: {error}. Free space or "
                "permissions and try again."
            ) from error

    def store_training_file(
        self, retriever: str, examples: tuple[TrainingExample, ...]
    ) -> TrainingFile:
        """Freeze examples under the digest of their canonical bytes; idempotent."""
        content = training_file.dump(examples)
        digest = training_file.digest(content)
        location = f"{retriever}/training/{digest}.jsonl"
        if not self._storage.has(location):
            self._storage.write(location, content)
        return TrainingFile(location=location, digest=digest, examples=len(examples))

    def load_training_file(self, frozen: TrainingFile) -> tuple[TrainingExample, ...]:
        """The examples of a manifest.

        Raises:
            InputError: the file is missing or malformed.
            ModelError: it is not the file that the manifest names.
        """
        name = f"{self.name}/{_inside(frozen.location)}"
        try:
            content = self._storage.read(frozen.location)
        except OSError as error:
            raise InputError(f"Cannot read the training file {name}: {error}.") from error
        if training_file.digest(content) != frozen.digest:
            raise ModelError(
                f"The training file {name} is not the one that the manifest names: its digest is "
                f"not {frozen.digest}. Restore it from a copy of the registry."
            )
        return training_file.parse(content, name)


def _inside(location: str) -> str:
    try:
        return inside(location)
    except ValueError as error:
        raise ModelError(f"The location {location!r} lies outside the registry.") from error
