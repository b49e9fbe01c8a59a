"""A registry in object storage, by an fsspec URL such as ``s3://bucket/prefix``.

::

    <url>/<retriever>/v3-<digest, 16 digits>/…    the files of a model
    <url>/<retriever>/v3.json                     its manifest: paths, sizes, digests; written last
    <url>/<retriever>/v3.md                       its model card
    <url>/<retriever>/training/<digest>.jsonl

An object appears whole or not at all, a folder of them does not. So a model is what a manifest
names, and the manifest is created under the condition that there is none (S3: ``If-None-Match: *``,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).

A model is read through a copy on this machine, every file of which is compared with its digest.
"""

import errno
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import fsspec
import structlog
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import Callback
from fsspec.spec import AbstractFileSystem
from pydantic import ValidationError

from schemas.base import Contract
from schemas.errors import ConfigurationError, ModelError, RegistryError, RetrailError
from schemas.releases import Model
from trainer.registry import model_files
from trainer.registry.model_copies import ModelCopies
from trainer.registry.model_files import ModelFile

log = structlog.get_logger(__name__)

PROGRESS_SECONDS = 10.0
"""Between two log lines of a long transfer."""

CONNECT_SECONDS = 5.0
"""For a connection to S3, each of several times; a search waits for it. Its own default is 60."""

_VERSION = re.compile(r"v([1-9]\d*)\.json")

_exclusive: dict[str, bool] = {}
"""By URL, whether its storage creates exclusively; asked once a process."""


class Manifest(Contract):
    """What makes objects a model: it names them all."""

    format: Literal["retrail-model/1"] = "retrail-model/1"
    files: tuple[ModelFile, ...]

    @property
    def digest(self) -> str:
        """Of the model."""
        return model_files.digest(self.files)


class ObjectStorage:
    """Keeps models as objects; creating a manifest publishes."""

    def __init__(self, url: str, copies: Path) -> None:
        """Nothing is read or written yet.

        Credentials and endpoint are those that the library of the protocol finds: for S3 the
        variables ``AWS_…``, profiles and roles; for all the configuration of fsspec.

        Args:
            url: of a bucket, or of a prefix in one.
            copies: folder on this machine.

        Raises:
            ConfigurationError: no installed library speaks the protocol.
        """
        self._url = url.rstrip("/")
        self._copies = ModelCopies(copies)
        try:
            found = fsspec.core.url_to_fs(self._url, **_options(self._url))
        except (ImportError, ValueError) as error:
            extra = " Run: pip install 'retrail-server[s3]'." if _is_s3(self._url) else ""
            raise ConfigurationError(
                f"RETRAIL_REGISTRY is {self._url}, which cannot be used: {error}.{extra}"
            ) from error
        self._files: AbstractFileSystem = found[0]
        self._root: str = found[1].rstrip("/")

    @property
    def name(self) -> str:
        return self._url

    def require(self, *, writing: bool) -> None:
        self._list(self._root)
        if writing:
            self._require_exclusive_create()

    def writing(self, location: str) -> AbstractContextManager[Path]:
        return self._copies.writing(PurePosixPath(location).name)

    def add(self, location: str, folder: Path) -> bool:
        """Publish what was written.

        1. A manifest is there: nothing is to do.
        2. Upload the files, under a name with their digest: publishers of different files do not
           meet. *A crash here*: nobody knows of them.
        3. Create the manifest, unless there is one by now. From here on the model is published.
        4. Remove the files of those that came too late, or were killed before 3.
        5. Keep the files as the copy of this machine.
        """
        if self._manifest(location) is not None:
            return False
        manifest = Manifest(files=model_files.survey(folder))
        objects = _objects(location, manifest.digest)
        self._require_exclusive_create()
        self._upload(manifest, folder, objects)
        self._create(f"{location}.json", manifest.to_json())
        published = self._manifest(location)
        if published is None:
            raise RegistryError(
                f"The registry {self._url} took the manifest of {location} and does not give it "
                "back. Its storage must be consistent: what was written must be read at once."
            )
        self._remove_unpublished(location, keep=_objects(location, published.digest))
        if published.digest != manifest.digest:
            return False
        self._copies.keep(folder, manifest.digest)
        return True

    def digest(self, location: str) -> str | None:
        manifest = self._manifest(location)
        return manifest.digest if manifest else None

    def versions(self, home: str) -> list[int]:
        found = (_VERSION.fullmatch(name) for name in self._list(self._path(home)))
        return [int(match[1]) for match in found if match]

    def open(self, model: Model) -> Path:
        copy = self._copies.find(model.digest)
        if copy is not None:
            return copy
        manifest = self._manifest(model.location)
        if manifest is None:
            raise ModelError(
                f"The registry {self._url} has no model {model.location}. Point RETRAIL_REGISTRY "
                "to the registry that the release was published in."
            )
        if manifest.digest != model.digest:
            raise ModelError(
                f"The model {model.location} in {self._url} is not the one that was published: its "
                f"digest is not {model.digest}. Restore its objects from a copy, or roll back."
            )
        try:
            with self._copies.writing(model.digest) as folder:
                self._download(manifest, _objects(model.location, model.digest), folder)
                return self._copies.keep(folder, model.digest)
        except OSError as error:
            raise ModelError(
                f"Cannot copy the model {model.location} into {self._copies.folder}: {error}. "
                "Free space or permissions, or set RETRAIL_DATA_DIR to another folder."
            ) from error

    def has(self, location: str) -> bool:
        with self._asking(f"look for {location}"):
            try:
                self._files.info(self._path(location))
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return False
        return True

    def read(self, location: str) -> bytes:
        with self._asking(f"read {location}"):
            content: bytes = self._files.cat_file(self._path(location))
        return content

    def write(self, location: str, content: bytes) -> str:
        with self._asking(f"write {location}"):
            self._files.pipe_file(self._path(location), content)
        return f"{self._url}/{location}"

    def _path(self, location: str) -> str:
        return f"{self._root}/{location}"

    def _list(self, path: str) -> list[str]:
        """Names right below a path, of objects and of prefixes."""
        with self._asking("list models"):
            try:
                found = self._files.ls(path, detail=False)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return []
        return [PurePosixPath(name).name for name in found]

    def _manifest(self, location: str) -> Manifest | None:
        name = f"{location}.json"
        try:
            return Manifest.model_validate_json(self.read(name))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ModelError(
                f"The manifest {name} in {self._url} is damaged: {error.errors()[0]['msg']}. "
                "Restore it from a copy, or roll back."
            ) from error

    def _create(self, location: str, content: bytes) -> None:
        """Create an object, unless there is one: then that one stays."""
        with self._asking(f"create {location}"):
            try:
                self._files.pipe_file(self._path(location), content, mode="create")
            except Exception:
                # That it is there is told by another error on every server; a repeated request
                # may also find what its first try has created.
                if not self.has(location):
                    raise

    def _require_exclusive_create(self) -> None:
        """Try once whether the storage takes a condition seriously, and say so if not.

        There are servers that ignore it. One trainer is active at a time, so that a release is
        still made once; what is lost is the guard behind it.
        """
        if self._url in _exclusive:
            return
        generic = AbstractFileSystem.pipe_file
        atomic = isinstance(self._files, AsyncFileSystem) or type(self._files).pipe_file != generic
        probe = f".probe-{secrets.token_hex(8)}"
        self._create(probe, b"first")
        self._create(probe, b"second")
        _exclusive[self._url] = atomic and self.read(probe) == b"first"
        self._remove(probe)
        if not _exclusive[self._url]:
            log.warning(
                "this storage does not create exclusively: two trainers that publish one version "
                "at the same moment could overwrite each other",
                registry=self._url,
            )

    def _upload(self, manifest: Manifest, folder: Path, objects: str) -> None:
        progress = _Progress("uploading model", objects, manifest)
        for file in manifest.files:
            with self._asking(f"write {objects}/{file.path}"):
                target = self._path(f"{objects}/{file.path}")
                self._files.put_file(str(folder / file.path), target, callback=progress)
        progress.finish()

    def _download(self, manifest: Manifest, objects: str, folder: Path) -> None:
        progress = _Progress("downloading model", objects, manifest)
        for file in manifest.files:
            name = f"{objects}/{file.path}"
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._asking(f"read {name}"):
                    self._files.get_file(self._path(name), str(target), callback=progress)
            except FileNotFoundError as error:
                raise ModelError(
                    f"The object {name} in {self._url} is missing, though a manifest names it. "
                    "Restore it from a copy, or roll back."
                ) from error
            if (target.stat().st_size, model_files.sha256_of(target)) != (file.size, file.sha256):
                raise ModelError(
                    f"The object {name} in {self._url} is not what was published: its digest is "
                    f"not {file.sha256}. Restore it from a copy, or roll back."
                )
        progress.finish()

    def _remove_unpublished(self, location: str, keep: str) -> None:
        """Remove the files of a version that its manifest does not name; nobody can publish them
        any more."""
        home = PurePosixPath(location).parent
        begins = PurePosixPath(_objects(location, "")).name
        for name in self._list(self._path(str(home))):
            if name.startswith(begins) and name != PurePosixPath(keep).name:
                self._remove(str(home / name))

    def _remove(self, location: str) -> None:
        """Remove an object, or all below a prefix; what cannot be removed only costs space."""
        try:
            with self._asking(f"remove {location}"):
                self._files.rm(self._path(location), recursive=True)
        except FileNotFoundError:
            return
        except RegistryError as error:
            log.warning("cannot remove objects that nobody needs", error=str(error))

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Around calls of the file system, whose errors are of as many classes as there are.

        Lets FileNotFoundError and errors of the local disk through.

        Raises:
            RegistryError: for all others, saying what to do.
        """
        try:
            yield
        except RetrailError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
                raise
            if isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket":
                raise
            raise RegistryError(self._said(what, error)) from error

    def _said(self, what: str, error: Exception) -> str:
        if isinstance(error, FileNotFoundError):
            bucket = self._root.partition("/")[0]
            return (
                f"The registry {self._url} cannot be used: there is no bucket {bucket!r}. Create "
                "it, or correct RETRAIL_REGISTRY, AWS_ENDPOINT_URL or the region (AWS_REGION)."
            )
        if isinstance(error, PermissionError):
            return (
                f"The registry {self._url} denies the right to {what}: {error}. Check the "
                "credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the "
                "role of this machine) and what they may do in the bucket: list, get and put; a "
                "trainer also deletes what it could not finish."
            )
        return (
            f"Cannot {what} in the registry {self._url}: {error} ({type(error).__name__}). Check "
            "that it can be reached (RETRAIL_REGISTRY, AWS_ENDPOINT_URL, the network) and the "
            "credentials, then start again."
        )


class _Progress(Callback):  # type: ignore[misc]
    """Tells of a transfer now and then, in bytes of the whole model."""

    def __init__(self, event: str, objects: str, manifest: Manifest) -> None:
        super().__init__()
        self._event = event
        self._objects = objects
        self._bytes = sum(file.size for file in manifest.files)
        self._done = 0
        self._began = self._told = time.monotonic()

    def relative_update(self, inc: int = 1) -> None:
        self._done += inc
        if time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._tell(self._event)

    def finish(self) -> None:
        """Tell that all is done."""
        self._tell(f"{self._event}: done")

    def _tell(self, event: str) -> None:
        self._told = time.monotonic()
        log.info(
            event,
            model=self._objects,
            mb=round(self._done / 1e6, 1),
            of_mb=round(self._bytes / 1e6, 1),
            seconds=round(self._told - self._began, 1),
        )


def _options(url: str) -> dict[str, Any]:
    """Of the file system, on top of fsspec's own configuration."""
    # What another process has published must be seen at once.
    options: dict[str, Any] = {"use_listings_cache": False}
    if _is_s3(url):
        configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {"connect_timeout": CONNECT_SECONDS, **configured}
    return options


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def _objects(location: str, digest: str) -> str:
    """The prefix of a model's files."""
    return f"{location}-{digest[:16]}"


def _code(error: Any) -> str | None:
    """The code of S3's answer that an error was made of, if it was."""
    response = getattr(error.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code
