"""The registry of models and training files: a folder, or object storage, in one layout.

::

    <registry>/<retriever>/v3.json             manifest: the model is published
    <registry>/<retriever>/v3-<random>/…       its files, in sentence-transformers format
    <registry>/<retriever>/v3.md, …            beside it and not in its digest: the model card
    <registry>/<retriever>/training/<digest>.jsonl

A file appears whole or not at all, a folder of files does not. So a model is what a manifest lists.
It is written last, under the condition that there is none: a hard link in a folder,
``If-None-Match: *`` in S3
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).

Locations in records are relative to the registry, so it can be moved, or copied file by file from a
folder into a bucket.
"""

import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

import structlog
from pydantic import ValidationError

from schemas.errors import InputError, ModelError, RegistryError
from schemas.releases import Model
from schemas.runs import TrainingFile
from schemas.settings import Settings
from trainer.data.examples import TrainingExample, dump_file, file_digest, parse_file
from trainer.model.encoder import Encoder
from trainer.registry.cache import ModelCache
from trainer.registry.manifest import Manifest, inside, survey
from trainer.registry.storage import Storage

log = structlog.get_logger(__name__)

_MANIFEST = re.compile(r"v([1-9]\d*)\.json")


class Registry:
    """Models and training files of the retrievers in one place.

    Any number of processes may share it: what is published never changes. Every method raises
    :class:`schemas.errors.RegistryError` if the folder or object storage cannot be used.
    """

    def __init__(self, url: str, cache: Path) -> None:
        """Nothing is read or written yet.

        Args:
            url: a folder, or a URL of object storage.
            cache: folder on this machine: models are written here, and downloaded into it. Models
                of a registry in a folder are opened where they are.

        Raises:
            ConfigurationError: no installed library supports the protocol of the URL.
        """
        self._storage = Storage(url)
        self._cache = ModelCache(cache)

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
        """Fail now, and not after an hour's training, if it cannot be read, or written to."""
        self._storage.list()
        if writing:
            self._storage.try_exclusive_create()

    def publish(self, retriever: str, version: int, write: Callable[[Path], None]) -> Model:
        """Publish a model: it appears whole, durably, or not at all.

        1. Write the files on this machine.
        2. Copy them into the registry, unless the version is published. *A crash here*: no
           manifest lists them.
        3. Create the manifest, unless there is one by now. From here on the model is published.
        4. Remove the version's files that the manifest does not list: of publishers that came too
           late, or crashed before 3.

        To publish the same files again changes nothing. Of two processes that publish different
        files as one version, one succeeds.

        Args:
            retriever: the family.
            version: 1, 2, ….
            write: fills an existing empty folder, for instance ``encoder.save``.

        Raises:
            ModelError: the version exists with other files, or this machine's disk fails.
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
                f"Cannot publish version {version} of {retriever} into {self.name}: {error}. "
                "Nothing was published; free space or correct permissions and try again.",
                version=version,
            ) from error
        if published.digest != manifest.digest:
            raise ModelError(
                f"Version {version} of {retriever} is in the registry already, with other files "
                f"({self.name}, {location}). Versions never change: use the published one, or "
                "another registry.",
                version=version,
            )
        if published == manifest:
            log.info("model published", retriever=retriever, version=version)
        return Model(location=location, digest=manifest.digest)

    def published(self, retriever: str, version: int) -> Model | None:
        """What is published as this version, or nothing: a repeated run need not train again.

        Raises:
            ModelError: its manifest is damaged.
        """
        location = f"{retriever}/v{version}"
        manifest = self._manifest(location)
        return Model(location=location, digest=manifest.digest) if manifest else None

    def holds(self, model: Model) -> bool:
        """Whether a model is published as a record names it; its files are not read.

        Raises:
            ModelError: its manifest is damaged.
        """
        try:
            manifest = self._manifest(inside(model.location))
        except ValueError:
            return False
        return manifest is not None and manifest.digest == model.digest

    def versions(self, retriever: str) -> list[int]:
        """Versions that are published, ascending."""
        found = (_MANIFEST.fullmatch(name) for name in self._storage.list(retriever))
        return sorted(int(match[1]) for match in found if match)

    def open(self, model: Model) -> Path:
        """A folder on this machine with the files of a model, their digests verified.

        Raises:
            ModelError: it is not there, its files are not those that were published, or they
                cannot be copied to this machine's disk.
        """
        if self._storage.is_folder:
            manifest = self._manifest_of(model)
            folder = Path(self._storage.path(_files(model.location, manifest)))
            return self._verified(model, manifest, folder)
        try:
            return self._cache.open(model.digest, partial(self._download, model))
        except OSError as error:
            raise ModelError(
                f"Cannot copy the model {model.location} into {self._cache.folder}: {error}. "
                "Free space or correct permissions, or set RETRAIL_DATA_DIR to another folder."
            ) from error

    def load(self, model: Model) -> Encoder:
        """The encoder of a release; its prefixes, pooling and length limit lie with the model.

        Raises:
            ModelError: see :meth:`open` and :meth:`trainer.model.encoder.Encoder.load`.
        """
        return Encoder.load(self.open(model), max_tokens=None)

    def write_beside(self, model: Model, suffix: str, text: str) -> None:
        """Write a file about a published model beside it, in the place of an earlier one.

        It is no file of the model: the digest does not cover it.

        Args:
            suffix: of the file's name: ``md`` for the model card, ….
        """
        self._storage.write(f"{_inside(model.location)}.{suffix}", text.encode())

    def store_training_file(
        self, retriever: str, examples: tuple[TrainingExample, ...]
    ) -> TrainingFile:
        """Freeze examples under the digest of their canonical bytes; idempotent."""
        content = dump_file(examples)
        digest = file_digest(content)
        location = f"{retriever}/training/{digest}.jsonl"
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
        except FileNotFoundError as error:
            raise InputError(
                f"Cannot read the training file {name}: {error}.", path=name
            ) from error
        if file_digest(content) != frozen.digest:
            raise ModelError(
                f"The training file {name} is not the one that the manifest names: its digest is "
                f"not {frozen.digest}. Restore it from a copy of the registry.",
                path=name,
            )
        return parse_file(content, name)

    def _add(self, location: str, manifest: Manifest, folder: Path) -> Manifest:
        """Steps 2 and 3; the manifest that is published then, this one or another."""
        files = _files(location, manifest)
        try:
            self._storage.try_exclusive_create()
            self._storage.upload(folder, manifest.files, files)
        except (OSError, RegistryError):
            self._storage.remove(files)
            # Another publisher of this version that has finished removes these files.
            if (published := self._manifest(location)) is None:
                raise
            return published
        self._storage.create(_name(location), manifest.to_json())
        published = self._manifest(location)
        if published is None:
            raise RegistryError(
                f"The registry {self.name} accepted the manifest of {location} and does not "
                "return it. Its storage must be consistent: what was written must be read at once."
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
                "Restore it from a copy, or roll back."
            ) from error

    def _manifest_of(self, model: Model) -> Manifest:
        manifest = self._manifest(_inside(model.location))
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
        # If a file is missing, the error of the verification names it.
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
            f"The model {model.location} in {self.name} is not the one that was published: {how}. "
            "Restore it from a copy, or roll back."
        )


def _name(location: str) -> str:
    """Of the manifest."""
    return f"{location}.json"


def _files(location: str, manifest: Manifest) -> str:
    """Where the files of a model lie."""
    return str(PurePosixPath(location).parent / manifest.folder)


def _inside(location: str) -> str:
    try:
        return inside(location)
    except ValueError as error:
        raise ModelError(f"The location {location!r} lies outside the registry.") from error
