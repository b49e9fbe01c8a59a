"""The file system of a registry, through fsspec: a folder or object storage.

It adds to fsspec atomic writes in folders, and errors that name the registry and a remedy.
"""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import structlog
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from retrail_runtime.files import DISK_FULL, atomic_write, free_space, sync
from retrail_runtime.metrics import DEPENDENCY_UP
from schemas.errors import ConfigurationError, RegistryError, RetrailError
from trainer.registry.manifest import ModelFile

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
"""Timeout of one attempt to connect to S3 (botocore's default is 60): a search waits for it."""

_NOT_EXCLUSIVE = (
    "the registry's storage does not support exclusive create; concurrent publishers of one "
    "version may overwrite each other"
)

ADVICE: tuple[tuple[str, str], ...] = (
    (r"\(SignatureDoesNotMatch\)", "Correct AWS_SECRET_ACCESS_KEY, or the profile (AWS_PROFILE)."),
    (
        r"\(InvalidAccessKeyId\)",
        "Correct AWS_ACCESS_KEY_ID, the profile (AWS_PROFILE), or AWS_ENDPOINT_URL: this server "
        "does not have the key.",
    ),
    (
        # To a request without a body in its answer.
        r"\(403\)",
        "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile (AWS_PROFILE), or give "
        "them the permissions in the bucket (docs/security.md).",
    ),
    (
        r"\(AccessDenied|\(PermissionError",
        "The credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, or the role of this machine) lack a "
        "permission in the bucket: list, get and put; a trainer also needs delete "
        "(docs/security.md).",
    ),
    (
        r"\((NoCredentialsError|PartialCredentialsError)",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a "
        "role.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "AWS_CA_BUNDLE must have signed the server's certificate, and the host in AWS_ENDPOINT_URL "
        "must be a name in it.",
    ),
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE",
        "The server answers without TLS: AWS_ENDPOINT_URL must begin with http://, or have another "
        "port.",
    ),
    (
        r"",
        "Check that it can be reached (RETRAIL_REGISTRY, AWS_ENDPOINT_URL with http:// or "
        "https://, the network) and the credentials, then start again.",
    ),
)
"""Patterns of object storage's reasons, the first that matches counts, and what to do."""

_tried: set[str] = set()
"""Registries whose exclusive create this process has tested."""


class Storage:
    """Files below one root; locations are POSIX paths relative to it.

    Every method raises :class:`schemas.errors.RegistryError` if the folder or object storage
    cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Neither read nor write anything yet.

        Credentials and endpoint come from the protocol's library: for S3 the variables ``AWS_…``,
        profiles and roles; for all protocols fsspec's configuration.

        Args:
            url: a folder, or the URL of a bucket or of a prefix in one.

        Raises:
            ConfigurationError: no installed library supports the protocol.
        """
        self.name = url.rstrip("/")
        self.is_folder = "://" not in url
        self._files: AbstractFileSystem
        if self.is_folder:
            self._files, self._root = _Folder(auto_mkdir=True), self.name
        else:
            self._files, self._root = _remote(self.name)

    def path(self, location: str) -> str:
        """Path in the file system; for a folder, the local path."""
        return f"{self._root}/{location}"

    def list(self, location: str = "") -> list[str]:
        """Names of the files and folders directly in a location; empty if it does not exist."""
        try:
            with self._request("list models"):
                found = self._files.ls(self.path(location).rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return [PurePosixPath(name).name for name in found]

    def read(self, location: str) -> bytes:
        """A file.

        Raises:
            FileNotFoundError: it does not exist.
        """
        with self._request(f"read {location}"):
            content: bytes = self._files.cat_file(self.path(location))
        return content

    def modified(self, location: str) -> datetime:
        """When a file was written last.

        Raises:
            FileNotFoundError: it does not exist.
        """
        with self._request(f"look at {location}"):
            found: datetime = self._files.modified(self.path(location))
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def write(self, location: str, content: bytes) -> None:
        """Write or replace a file atomically."""
        with self._request(f"write {location}"):
            self._files.pipe_file(self.path(location), content)

    def create(self, location: str, content: bytes) -> None:
        """Write a file atomically, unless it exists."""
        with self._request(f"create {location}"):
            try:
                self._files.pipe_file(self.path(location), content, mode="create")
            except Exception as error:
                # Servers report an existing object by different errors, and a retried request may
                # find the object that its first attempt created.
                try:
                    self.read(location)
                except FileNotFoundError:
                    raise error from error.__cause__

    def upload(self, folder: Path, files: tuple[ModelFile, ...], location: str) -> None:
        """Copy the files of a local folder into a location.

        Raises:
            OSError: a local file cannot be read.
        """
        log.info("copying a model into the registry", files=location, mb=_megabytes(files))
        for file in files:
            name = f"{location}/{file.path}"
            with self._request(f"write {name}"):
                self._files.put_file(str(folder / file.path), self.path(name))
        if self.is_folder:
            target = Path(self.path(location))
            with self._request(f"write {location}"):
                for path in (*target.rglob("*"), target, target.parent):
                    sync(path)

    def download(self, location: str, files: tuple[ModelFile, ...], folder: Path) -> None:
        """Copy the files in a location into a local folder.

        Raises:
            FileNotFoundError: one of them does not exist.
            OSError: a local file cannot be written.
        """
        log.info("copying a model from the registry", files=location, mb=_megabytes(files))
        for file in files:
            name, target = f"{location}/{file.path}", folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._request(f"read {name}"):
                self._files.get_file(self.path(name), str(target))

    def remove(self, location: str) -> None:
        """Remove a file, or a folder with its contents; a failure is only logged."""
        try:
            with self._request(f"remove {location}"):
                self._files.rm(self.path(location), recursive=True)
        except FileNotFoundError:
            return
        except RegistryError as error:
            log.warning("cannot remove files", error=str(error))

    def try_exclusive_create(self) -> None:
        """Test once per process whether the storage supports exclusive create; if not, warn.

        Some servers ignore the condition. Only one trainer is active at a time, so a release is
        still published once there; only the second guard is missing.
        """
        if self.name in _tried:
            return
        generic = AbstractFileSystem.pipe_file
        atomic = isinstance(self._files, AsyncFileSystem) or type(self._files).pipe_file != generic
        probe = f".probe-{secrets.token_hex(8)}"
        self.create(probe, b"first")
        self.create(probe, b"second")
        if not (atomic and self.read(probe) == b"first"):
            log.warning(_NOT_EXCLUSIVE, registry=self.name)
        self.remove(probe)
        _tried.add(self.name)

    @contextmanager
    def _request(self, what: str) -> Iterator[None]:
        """Translate the errors of the file system, which are of many classes.

        FileNotFoundError and, for object storage, errors of the local disk pass unchanged.

        Raises:
            RegistryError: for all others, with a remedy.
        """
        try:
            yield
            DEPENDENCY_UP.labels("registry").set(1)
        except RetrailError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket":
                raise
            local = isinstance(error, OSError) and (error.filename or error.errno in DISK_FULL)
            if local and not self.is_folder:
                raise
            DEPENDENCY_UP.labels("registry").set(0)
            raise RegistryError(self._message(what, error)) from error

    def _message(self, what: str, error: Exception) -> str:
        if self.is_folder:
            # An error with a cause is atomic_file's, which has the free space already.
            free = "" if error.__cause__ else f" ({free_space(Path(self._root))})"
            return (
                f"Cannot {what} in the registry {self.name}: {error}{free}. Check the disk and the "
                "permissions there, or set RETRAIL_REGISTRY or RETRAIL_DATA_DIR to a folder that "
                "this user can write."
            )
        if isinstance(error, FileNotFoundError):
            bucket = self._root.partition("/")[0]
            return (
                f"The registry {self.name} cannot be used: there is no bucket {bucket!r}. Create "
                "it, or correct RETRAIL_REGISTRY, AWS_ENDPOINT_URL or the region (AWS_REGION)."
            )
        reason = f"{str(error).rstrip('.')} ({_code(error) or type(error).__name__})"
        if isinstance(error, PermissionError):
            begin = f"The registry {self.name} denies permission to {what}"
        else:
            begin = f"Cannot {what} in the registry {self.name}"
        advice = next(advice for pattern, advice in ADVICE if re.search(pattern, reason))
        return f"{begin}: {reason}. {advice}"


class _Folder(LocalFileSystem):  # type: ignore[misc]
    """The local file system with atomic writes, as in object storage."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if mode != "create":
            atomic_write(target, value)
            return
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        atomic_write(part, value)
        try:
            os.link(part, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            # FAT, SMB and some FUSE file systems have no hard links.
            log.warning(_NOT_EXCLUSIVE, file=path, error=str(error))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        sync(target.parent)


def _remote(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it."""
    is_s3 = url.startswith(("s3://", "s3a://"))
    # Files that another process publishes must be visible at once.
    options: dict[str, Any] = {"use_listings_cache": False}
    if is_s3:
        bundle = os.environ.get("AWS_CA_BUNDLE")
        if bundle and not os.access(bundle, os.R_OK):
            raise ConfigurationError(f"AWS_CA_BUNDLE={bundle} cannot be read: correct its path.")
        configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        # The mode "standard" tries three times, within 3 s, and a refusal is not repeated longer.
        ours = {"connect_timeout": CONNECT_SECONDS, "retries": {"mode": "standard"}}
        options["config_kwargs"] = {**ours, **configured}
    try:
        files, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        extra = " Run: pip install 'retrail-server[s3]'." if is_s3 else ""
        raise ConfigurationError(
            f"RETRAIL_REGISTRY is {url}, which cannot be used: {error}.{extra}"
        ) from error
    return files, root.rstrip("/")


def _megabytes(files: tuple[ModelFile, ...]) -> float:
    return round(sum(file.size for file in files) / 1e6, 1)


def _code(error: Any) -> str | None:
    """The code of the S3 response behind an error, if there was one."""
    response = getattr(error.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code
