"""The registry of models and training files: a folder, or object storage, in one layout.

::

    <registry>/<retriever>/v3.json             manifest; its existence publishes the model
    <registry>/<retriever>/v3-<random>/…       the files, in sentence-transformers format
    <registry>/<retriever>/v3.md, …            model card and the like, not part of the digest
    <registry>/<retriever>/training/<digest>.jsonl

Single files are written atomically, folders are not. So a model consists of the files in its
manifest, which is written last and only if none exists: with a hard link in a folder, with
``If-None-Match: *`` in S3
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).

Locations in records are relative to the registry, so it can be moved, or copied file by file from a
folder into a bucket.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from retrail_runtime.files import free_space
from schemas.errors import InputError, ModelError, RegistryError
from schemas.releases import Model
from schemas.runs import TrainingFile
from schemas.settings import Settings
from trainer.data.examples import TrainingExample, dump_file, file_digest, parse_file
from trainer.registry.cache import ModelCache
from trainer.registry.manifest import Manifest, checked, inside, survey
from trainer.registry.notes import Notes
from trainer.registry.storage import Storage

if TYPE_CHECKING:
    from trainer.model.encoder import Encoder

log = structlog.get_logger(__name__)

GATE_FILE = "gate.jsonl"
"""Suffix of the gate's results and pool (:mod:`trainer.evaluate.frozen`)."""


class Registry:
    """Models and training files of all retrievers.

    Any number of processes may share it; published files never change. Every method raises
    :class:`schemas.errors.RegistryError` if the folder or object storage cannot be used.

    Attributes:
        notes: what became of training files and results of the gate.
    """

    def __init__(self, url: str, cache: Path) -> None:
        """Neither read nor write anything yet.

        Args:
            url: a folder, or a URL of object storage.
            cache: local folder in which models are written before they are published, and into
                which they are downloaded. A registry in a folder is read in place.

        Raises:
            ConfigurationError: no installed library supports the protocol of the URL.
        """
        self._storage = Storage(url)
        self._cache = ModelCache(cache)
        self.notes = Notes(self._storage)

    @classmethod
    def of(cls, settings: Settings) -> "Registry":
        """The registry of an installation: ``RETRAIL_REGISTRY``.

        Raises:
            ConfigurationError: see :class:`Registry`.
        """
        return cls(settings.registry_url, settings.model_cache)

    @property
    def name(self) -> str:
        """The folder or URL, for messages."""
        return self._storage.name

    def require(self, *, writing: bool) -> None:
        """Check at the start of a process that the registry can be read, or also written."""
        self._storage.list()
        if writing:
            self._storage.try_exclusive_create()

    def publish(self, retriever: str, version: int, write: Callable[[Path], None]) -> Model:
        """Publish a model atomically and durably.

        1. Write the files on this machine.
        2. Copy them into the registry, unless the version is published. *A crash here*: no
           manifest lists them.
        3. Create the manifest, unless one exists by now. The model is published from here on.
        4. Remove files of this version that the manifest does not list, left by publishers that
           lost the race or crashed before 3.

        Publishing the same files again changes nothing. If two processes publish different files as
        one version, one of them succeeds.

        Args:
            retriever: name of the retriever.
            version: 1, 2, ….
            write: fills an existing empty folder, such as ``encoder.save``.

        Raises:
            ModelError: the version exists with other files, or the local disk fails.
        """
        location = f"{retriever}/v{version}"
        try:
            with self._cache.writing() as folder:
                write(folder)
                manifest = Manifest(
                    folder=f"v{version}-{secrets.token_hex(8)}", files=survey(folder)
                )
                published = self._manifest(location) or self._add(location, manifest, folder)
                self._remove_unpublished(location, published)
                if published.digest == manifest.digest and not self._storage.is_folder:
                    self._cache.open(manifest.digest, folder.rename)
        except OSError as error:
            raise ModelError(
                f"Cannot publish version {version} of {retriever} into {self.name}: {error} "
                f"({free_space(self._cache.folder)}). Nothing was published; free space or correct "
                "permissions and try again.",
                version=version,
            ) from error
        if published.digest != manifest.digest:
            raise ModelError(
                f"Version {version} of {retriever} exists in the registry with other files "
                f"({self.name}, {location}). Versions never change: use the published one, or "
                "another registry.",
                version=version,
            )
        if published == manifest:
            log.info("model published", retriever=retriever, version=version)
        return Model(location=location, digest=manifest.digest)

    def published(self, retriever: str, version: int) -> Model | None:
        """The model published as this version, or ``None``; a repeated run reuses it.

        Raises:
            ModelError: its manifest is damaged.
        """
        location = f"{retriever}/v{version}"
        manifest = self._manifest(location)
        return Model(location=location, digest=manifest.digest) if manifest else None

    def holds(self, model: Model) -> bool:
        """Whether the registry has a model with this location and digest; reads only its manifest.

        Raises:
            ModelError: its manifest is damaged.
        """
        try:
            manifest = self._manifest(inside(model.location))
        except ValueError:
            return False
        return manifest is not None and manifest.digest == model.digest

    def open(self, model: Model) -> Path:
        """A local folder with the files of a model, whose digests are verified.

        Raises:
            ModelError: the model is missing, its files differ from the published ones, or they
                cannot be copied to the local disk.
        """
        if self._storage.is_folder:
            manifest = self._manifest_of(model)
            folder = Path(self._storage.path(_files(model.location, manifest)))
            return self._verified(model, manifest, folder)
        try:
            return self._cache.open(model.digest, partial(self._download, model))
        except OSError as error:
            raise ModelError(
                f"Cannot copy the model {model.location} into {self._cache.folder}: {error} "
                f"({free_space(self._cache.folder)}). Free space or correct permissions, or set "
                "RETRAIL_DATA_DIR to another folder."
            ) from error

    def load(self, model: Model, *, trains: bool = False) -> "Encoder":
        """The encoder of a release; prompts, pooling and length limit are in the model's files.

        Args:
            trains: whether it can be trained and saved, not only encode.

        Raises:
            ModelError: see :meth:`open` and :meth:`trainer.model.encoder.Encoder.load`.
        """
        # Commands that only read records do not load torch.
        from trainer.model.encoder import Encoder

        return Encoder.load(self.open(model), max_tokens=None, encodes_only=not trains)

    def write_beside(self, model: Model, suffix: str, text: str) -> None:
        """Write or replace a file beside a published model, outside of its digest.

        Args:
            suffix: of the file's name, such as ``md`` for the model card.
        """
        self._storage.write(f"{checked(model.location)}.{suffix}", text.encode())

    def read_beside(self, model: Model, suffix: str) -> str | None:
        """The file that :meth:`write_beside` wrote; ``None`` if there is none.

        Raises:
            RegistryError: the registry is unavailable.
        """
        try:
            return self._storage.read(f"{checked(model.location)}.{suffix}").decode()
        except FileNotFoundError:
            return None

    def store_training_file(
        self, retriever: str, examples: tuple[TrainingExample, ...]
    ) -> TrainingFile:
        """Freeze examples under the digest of their canonical bytes; idempotent."""
        content = dump_file(examples)
        digest = file_digest(content)
        location = f"{_training(retriever)}/{digest}.jsonl"
        self._storage.write(location, content)
        return TrainingFile(location=location, digest=digest, examples=len(examples))

    def training_files(self, retriever: str) -> list[str]:
        """Locations of all training files of a retriever, also of runs that ended before their
        manifest."""
        folder = _training(retriever)
        names = self._storage.list(folder)
        return [f"{folder}/{name}" for name in sorted(names) if name.endswith(".jsonl")]

    def discard(self, frozen: TrainingFile) -> None:
        """Remove a training file that no manifest names."""
        self._storage.remove(frozen.location)

    def load_training_file(self, frozen: TrainingFile) -> tuple[TrainingExample, ...]:
        """The examples of a training file.

        Raises:
            InputError: the file is missing or malformed.
            ModelError: its digest differs from the one in the manifest.
        """
        name = f"{self.name}/{checked(frozen.location)}"
        try:
            content = self._storage.read(frozen.location)
        except FileNotFoundError as error:
            if self.notes.read(frozen.location).expired:
                raise InputError(
                    f"The training file {name} was removed by retention "
                    "(RETRAIL_TRAIN_RETENTION_HOURS), so its run cannot be repeated.",
                    path=name,
                ) from error
            raise InputError(
                f"Cannot read the training file {name}: {error}.", path=name
            ) from error
        if file_digest(content) not in (frozen.digest, *self.notes.read(frozen.location).digests):
            raise ModelError(
                f"The training file {name} is not the one in the manifest: its digest is not "
                f"{frozen.digest}. Restore it from a backup of the registry.",
                path=name,
            )
        return parse_file(content, name)

    def _add(self, location: str, manifest: Manifest, folder: Path) -> Manifest:
        """Steps 2 and 3; returns the published manifest, this one or another publisher's."""
        files = _files(location, manifest)
        try:
            self._storage.try_exclusive_create()
            self._storage.upload(folder, manifest.files, files)
        except (OSError, RegistryError):
            self._storage.remove(files)
            # Another publisher of this version may have finished and removed these files.
            if (published := self._manifest(location)) is None:
                raise
            return published
        self._storage.create(_name(location), manifest.to_json())
        published = self._manifest(location)
        if published is None:
            raise RegistryError(
                f"The registry {self.name} accepted the manifest of {location} but does not return "
                "it. The storage must be strongly consistent (read after write)."
            )
        return published

    def _remove_unpublished(self, location: str, published: Manifest) -> None:
        place = PurePosixPath(location)
        for name in self._storage.list(str(place.parent)):
            ours = name.lstrip(".").startswith((f"{place.name}-", f"{place.name}.json."))
            if ours and name != published.folder:
                self._storage.remove(str(place.parent / name))

    def _manifest(self, location: str) -> Manifest | None:
        name = _name(location)
        try:
            return Manifest.model_validate_json(self._storage.read(name))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ModelError(
                f"The manifest {name} in {self.name} is damaged: {error.errors()[0]['msg']}. "
                "Restore it from a backup, or roll back."
            ) from error

    def _manifest_of(self, model: Model) -> Manifest:
        manifest = self._manifest(checked(model.location))
        if manifest is None:
            raise ModelError(
                f"The registry {self.name} has no model {model.location}. Set RETRAIL_REGISTRY "
                "(or RETRAIL_DATA_DIR, whose folder registry is the default) to the registry that "
                "the release was published in."
            )
        if manifest.digest != model.digest:
            raise self._changed(model, f"its digest is not {model.digest}")
        return manifest

    def _download(self, model: Model, folder: Path) -> None:
        manifest = self._manifest_of(model)
        # The verification reports a missing file by name.
        with suppress(FileNotFoundError):
            self._storage.download(_files(model.location, manifest), manifest.files, folder)
        self._verified(model, manifest, folder)

    def _verified(self, model: Model, manifest: Manifest, folder: Path) -> Path:
        difference = manifest.difference(folder)
        if difference is not None:
            raise self._changed(model, f"{_files(model.location, manifest)}/{difference}")
        return folder

    def _changed(self, model: Model, how: str) -> ModelError:
        return ModelError(
            f"The model {model.location} in {self.name} differs from the published one: {how}. "
            "Restore it from a backup, or roll back."
        )


def _name(location: str) -> str:
    """Location of the manifest."""
    return f"{location}.json"


def _files(location: str, manifest: Manifest) -> str:
    """Location of a model's files."""
    return str(PurePosixPath(location).parent / manifest.folder)


def _training(retriever: str) -> str:
    return f"{retriever}/training"
