"""Files: written whole or not at all, read line by line; locks on folders of the data directory."""

import errno
import gzip
import io
import itertools
import os
import secrets
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from filelock import FileLock, Timeout

from schemas.errors import ConfigurationError, InputError, InvalidRecordError
from schemas.settings import Settings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, an exceeded quota, and the limit on file sizes (``ulimit -f``)."""

BOM = b"\xef\xbb\xbf"
PACKED = ("", ".gz", ".zst", ".zstd")
"""Endings of a file that may be compressed."""
UNREADABLE = (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError)
"""What reading a compressed file raises that is truncated or damaged."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def atomic_write(path: Path, data: str | bytes, *, mode: int = 0o666) -> None:
    """Replace a file with ``data`` (text as UTF-8); see :func:`atomic_file`.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    with atomic_file(path, mode=mode) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write, which replaces ``path`` when the block ends without an error.

    It is written beside ``path`` and synced to the disk, so readers find the old content or the new
    one, also after a power cut.

    Args:
        path: replaced if it exists; its folder must exist.
        mode: permissions, less the process's umask.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged. On a full disk its ``strerror``
            has the free space.
    """
    part = path.absolute().with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(part.parent)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        reason = f"{error.strerror} ({free_space(path)})"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to the disk.

    Raises:
        OSError: it does not exist, or the disk fails.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_space(path: Path) -> str:
    """Folder and free space of the disk of a file or folder, which need not exist: for errors."""
    absolute = path.absolute()
    folder = next(one for one in (absolute, *absolute.parents) if one.is_dir())
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB free in {folder}"


def private_folder(path: Path) -> Path:
    """Make a folder, and the missing ones above it, that only this user can enter; returns it."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def user_cache() -> Path:
    """Folder for downloads: ``$XDG_CACHE_HOME/retrail`` or ``~/.cache/retrail``.

    Raises:
        ConfigurationError: neither is known.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrail"
    except RuntimeError as error:
        raise ConfigurationError("There is no HOME. Set XDG_CACHE_HOME to a folder.") from error


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """A file to read: decompressed (gzip, Zstandard), without a byte order mark.

    Raises:
        InputError: the file cannot be read or decompressed.
    """
    try:
        with path.open("rb") as raw:
            stream = io.BufferedReader(decompressed(raw))
            if stream.peek(len(BOM)).startswith(BOM):
                stream.read(len(BOM))
            yield stream
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be decompressed: {error}.", path=path) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", path=path) from error


def decompressed(raw: BinaryIO) -> Any:
    """The content of an open file, by its first bytes: gzip, Zstandard, or as it is.

    Reading it raises one of :data:`UNREADABLE` where the file is truncated or damaged.
    """
    start = raw.read(len(_ZSTD))
    raw.seek(0)
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=raw)
    return zstd.ZstdFile(raw) if start == _ZSTD else raw


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Place (``file:line``) and bytes of each line that is not blank, without its line end.

    Raises:
        InputError: the file cannot be read or decompressed.
    """
    with open_input(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{path}:{number}", line.rstrip(b"\r\n")


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | InvalidRecordError]]:
    """Place (``file:line``) and JSON object of each line that is not blank, or its error.

    Equal faults have equal messages, without the column.

    Raises:
        InputError: the file cannot be read or decompressed.
    """
    for place, line in read_lines(path):
        try:
            found = orjson.loads(line.decode())
        except UnicodeDecodeError:
            yield place, InvalidRecordError("not UTF-8")
            continue
        except orjson.JSONDecodeError as error:
            yield place, InvalidRecordError(f"not JSON ({error.msg})")
            continue
        if isinstance(found, dict):
            yield place, found
        else:
            problem = f"a JSON object is expected, not {type(found).__name__}"
            yield place, InvalidRecordError(problem)


@dataclass(frozen=True, slots=True)
class Claim:
    """A locked folder; the lock ends with the process, also after a crash."""

    path: Path
    lock: FileLock


def claim(settings: Settings, role: str) -> Claim:
    """Lock the first free of ``<data_dir>/<role>``, ``<role>-2``, ``<role>-3``, ….

    A restarted worker gets its old folder back, so its local copies survive.

    Raises:
        ConfigurationError: the data directory cannot be written.
    """
    for number in itertools.count(1):
        path = settings.data_dir / (role if number == 1 else f"{role}-{number}")
        lock = try_lock(path / "lock")
        if lock is not None:
            return Claim(path, lock)
    raise AssertionError("unreachable")


def try_lock(path: Path) -> FileLock | None:
    """Lock a file, and create it with its folder if needed; ``None``: another process holds it.

    The lock ends when it is released or garbage-collected, or with the process.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    lock = FileLock(path, thread_local=False)
    try:
        private_folder(path.parent)
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write {path.parent}: {error.strerror} ({free_space(path)}). Set "
            "RETRAIL_DATA_DIR to a folder that this user can write."
        ) from error
    return lock
