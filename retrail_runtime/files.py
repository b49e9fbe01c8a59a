"""Files: written whole or not at all, read line by line."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from schemas.errors import InputError, InvalidRecordError


def atomic_write(path: Path, data: str | bytes, *, mode: int = 0o666) -> None:
    """Replace a file by ``data`` (text as UTF-8); see :func:`atomic_file`.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    with atomic_file(path, mode=mode) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends, if it does not raise.

    It is written beside ``path`` and synced to the disk, so a reader, or a machine that restarts
    after a power cut, finds the old content or the new one.

    Args:
        path: replaced if it exists; its folder must exist.
        mode: permissions, less the process's umask.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    part = path.absolute().with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(part.parent)
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


def user_cache() -> Path:
    """Where what is fetched once is kept: ``$XDG_CACHE_HOME/retrail`` or ``~/.cache/retrail``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrail"


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Place (``file:line``) and bytes of each line that is not blank.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", path=path) from error


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | InvalidRecordError]]:
    """Place (``file:line``) and JSON object of each line that is not blank, or why it is none.

    Raises:
        InputError: the file cannot be read.
    """
    for place, line in read_lines(path):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield place, InvalidRecordError(f"not JSON ({error})")
            continue
        if isinstance(found, dict):
            yield place, found
        else:
            problem = f"a JSON object is expected, not {type(found).__name__}"
            yield place, InvalidRecordError(problem)
